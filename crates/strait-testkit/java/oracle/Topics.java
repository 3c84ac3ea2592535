package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Topics and what an administrator does to them. */
public final class Topics {
    private final Clients clients;

    public Topics(Clients clients) {
        this.clients = clients;
    }

    /** Returns when every partition has a leader, so that the next request of anyone succeeds. */
    public JsonNode create(JsonNode request) throws Exception {
        Admin admin = clients.admin(request);
        String name = Clients.text(request, "topic");
        int partitions = request.get("partitions").intValue();
        Map<String, String> configs = new TreeMap<>();
        request.path("configs").properties().forEach(e -> configs.put(e.getKey(), e.getValue().asText()));
        NewTopic topic = new NewTopic(name, partitions, request.get("replication").shortValue()).configs(configs);
        ObjectNode answer = Clients.object();
        answer.put("id", admin.createTopics(List.of(topic)).topicId(name).get().toString());
        awaitLeaders(admin, name, partitions);
        return answer;
    }

    public JsonNode delete(JsonNode request) throws Exception {
        clients.admin(request).deleteTopics(List.of(Clients.text(request, "topic"))).all().get();
        return Clients.object();
    }

    public JsonNode grow(JsonNode request) throws Exception {
        Admin admin = clients.admin(request);
        String name = Clients.text(request, "topic");
        int total = request.get("total").intValue();
        admin.createPartitions(Map.of(name, NewPartitions.increaseTo(total))).all().get();
        awaitLeaders(admin, name, total);
        return Clients.object();
    }

    public JsonNode list(JsonNode request) throws Exception {
        ArrayNode names = Clients.NODES.arrayNode();
        ListTopicsOptions all = new ListTopicsOptions().listInternal(true);
        clients.admin(request).listTopics(all).names().get().stream().sorted().forEach(names::add);
        return names;
    }

    public JsonNode describe(JsonNode request) throws Exception {
        Admin admin = clients.admin(request);
        String name = Clients.text(request, "topic");
        TopicDescription topic = describe(admin, name);
        ObjectNode answer = Clients.object();
        answer.put("id", topic.topicId().toString());
        answer.put("internal", topic.isInternal());
        ArrayNode partitions = answer.putArray("partitions");
        for (TopicPartitionInfo info : topic.partitions()) {
            ObjectNode partition = partitions.addObject();
            partition.put("partition", info.partition());
            partition.put("leader", info.leader() == null ? -1 : info.leader().id());
            info.replicas().stream().map(Node::id).forEach(partition.putArray("replicas")::add);
            info.isr().stream().map(Node::id).forEach(partition.putArray("isr")::add);
        }
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
        ObjectNode configs = answer.putObject("configs");
        for (ConfigEntry entry : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
            ObjectNode config = configs.putObject(entry.name());
            config.put("value", entry.value());
            config.put("set_on_topic", entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        }
        return answer;
    }

    /** Of "topic" when it is there, else of every broker (the cluster's default). */
    public JsonNode alterConfigs(JsonNode request) throws Exception {
        ConfigResource resource = request.hasNonNull("topic")
            ? new ConfigResource(ConfigResource.Type.TOPIC, Clients.text(request, "topic"))
            : new ConfigResource(ConfigResource.Type.BROKER, "");
        List<AlterConfigOp> changes = new ArrayList<>();
        request.path("set").properties().forEach(e -> changes.add(
            new AlterConfigOp(new ConfigEntry(e.getKey(), e.getValue().asText()), AlterConfigOp.OpType.SET)));
        request.path("delete").forEach(key -> changes.add(
            new AlterConfigOp(new ConfigEntry(key.asText(), null), AlterConfigOp.OpType.DELETE)));
        clients.admin(request).incrementalAlterConfigs(Map.of(resource, changes)).all().get();
        return Clients.object();
    }

    /** The partition's new first offset. */
    public JsonNode deleteRecords(JsonNode request) throws Exception {
        TopicPartition partition = partition(request);
        RecordsToDelete before = RecordsToDelete.beforeOffset(request.get("before").longValue());
        long start = clients.admin(request).deleteRecords(Map.of(partition, before)).lowWatermarks().get(partition).get().lowWatermark();
        return Clients.NODES.numberNode(start);
    }

    /** Size of the leader's log, per partition in order. */
    public JsonNode storedBytes(JsonNode request) throws Exception {
        Admin admin = clients.admin(request);
        String name = Clients.text(request, "topic");
        ArrayNode sizes = Clients.NODES.arrayNode();
        for (TopicPartitionInfo info : describe(admin, name).partitions()) {
            if (info.leader() == null) {
                throw new IllegalStateException(name + "-" + info.partition() + " has no leader");
            }
            TopicPartition partition = new TopicPartition(name, info.partition());
            int leader = info.leader().id();
            long size = 0;
            for (LogDirDescription dir : admin.describeLogDirs(List.of(leader)).allDescriptions().get().get(leader).values()) {
                if (dir.replicaInfos().containsKey(partition)) {
                    size += dir.replicaInfos().get(partition).size();
                }
            }
            sizes.add(size);
        }
        return sizes;
    }

    public JsonNode reassign(JsonNode request) throws Exception {
        List<Integer> replicas = new ArrayList<>();
        request.get("replicas").forEach(replica -> replicas.add(replica.intValue()));
        clients.admin(request).alterPartitionReassignments(
            Map.of(partition(request), Optional.of(new NewPartitionReassignment(replicas)))).all().get();
        return Clients.object();
    }

    /** Makes the first replica in the list the leader again. */
    public JsonNode elect(JsonNode request) throws Exception {
        clients.admin(request).electLeaders(ElectionType.PREFERRED, Set.of(partition(request))).all().get();
        return Clients.object();
    }

    private static TopicPartition partition(JsonNode request) {
        return new TopicPartition(Clients.text(request, "topic"), request.get("partition").intValue());
    }

    private static TopicDescription describe(Admin admin, String name) throws Exception {
        return admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
    }

    private static void awaitLeaders(Admin admin, String name, int partitions) throws Exception {
        long deadline = System.nanoTime() + 60_000_000_000L;
        while (System.nanoTime() < deadline) {
            try {
                List<TopicPartitionInfo> infos = describe(admin, name).partitions();
                if (infos.size() >= partitions && infos.stream().allMatch(i -> i.leader() != null && !i.leader().isEmpty())) {
                    awaitLogs(admin, name, infos);
                    return;
                }
            } catch (java.util.concurrent.ExecutionException e) {
                if (!(e.getCause() instanceof UnknownTopicOrPartitionException)) {
                    throw e;
                }
            }
            Thread.sleep(20);
        }
        throw new IllegalStateException("no leader for every partition of " + name + " within 60 s");
    }

    /**
     * A leader is known a moment before it has its log. A new producer's first batch that is refused then, with a second
     * one on its way that is not, could never be written any more: the broker takes any first sequence.
     */
    private static void awaitLogs(Admin admin, String name, List<TopicPartitionInfo> infos) throws Exception {
        Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
        infos.forEach(info -> ends.put(new TopicPartition(name, info.partition()), OffsetSpec.latest()));
        admin.listOffsets(ends).all().get();
    }
}
