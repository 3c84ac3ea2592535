import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.connect.mirror.Checkpoint;

/** All that a mirror makes on a cluster, {@code BOOTSTRAP}, but for records: a line each, sorted. */
public final class Picture {
    public static void main(String[] args) throws Exception {
        TreeSet<String> lines = new TreeSet<>();
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0]);
        try (Admin admin = Admin.create(settings)) {
            TreeSet<String> names = new TreeSet<>(admin.listTopics().names().get());
            topics(admin, names, lines);
            acls(admin, lines);
            groups(admin, lines);
            for (String name : names) {
                if (name.endsWith(".checkpoints.internal")) {
                    checkpoints(args[0], name, lines);
                }
            }
        }
        lines.forEach(System.out::println);
    }

    private static void topics(Admin admin, TreeSet<String> names, TreeSet<String> lines) throws Exception {
        List<ConfigResource> resources = new ArrayList<>();
        for (var topic : admin.describeTopics(names).allTopicNames().get().values()) {
            lines.add("topic " + topic.name() + " partitions=" + topic.partitions().size());
            resources.add(new ConfigResource(ConfigResource.Type.TOPIC, topic.name()));
        }
        for (var found : admin.describeConfigs(resources).all().get().entrySet()) {
            for (ConfigEntry entry : found.getValue().entries()) {
                if (entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG) {
                    lines.add("config " + found.getKey().name() + " " + entry.name() + "=" + entry.value());
                }
            }
        }
    }

    private static void acls(Admin admin, TreeSet<String> lines) throws Exception {
        for (AclBinding acl : admin.describeAcls(AclBindingFilter.ANY).values().get()) {
            AccessControlEntry entry = acl.entry();
            lines.add(String.join(" ", "acl", acl.pattern().name(), acl.pattern().patternType().toString(),
                entry.principal(), entry.host(), entry.operation().toString(), entry.permissionType().toString()));
        }
    }

    private static void groups(Admin admin, TreeSet<String> lines) throws Exception {
        for (var group : admin.listGroups().all().get()) {
            var offsets = admin.listConsumerGroupOffsets(group.groupId()).partitionsToOffsetAndMetadata().get();
            offsets.forEach((at, offset) ->
                lines.add("commit " + group.groupId() + " " + at + " " + offset.offset() + " " + offset.metadata()));
        }
    }

    private static void checkpoints(String bootstrap, String topic, TreeSet<String> lines) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap);
        TreeMap<String, String> last = new TreeMap<>();
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            TopicPartition at = new TopicPartition(topic, 0);
            consumer.assign(List.of(at));
            consumer.seekToBeginning(List.of(at));
            long end = consumer.endOffsets(List.of(at)).get(at);
            while (consumer.position(at) < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    Checkpoint found = Checkpoint.deserializeRecord(record);
                    last.put(found.consumerGroupId() + " " + found.topicPartition(),
                        found.upstreamOffset() + " " + found.downstreamOffset() + " " + found.metadata());
                }
            }
        }
        last.forEach((key, value) -> lines.add("checkpoint " + key + " " + value));
    }
}
