package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;

/** Consumer groups: their members, and their offsets. */
public final class Groups {
    private final Clients clients;
    private final AtomicLong handles = new AtomicLong();
    private final Map<Long, Member> members = new ConcurrentHashMap<>();

    public Groups(Clients clients) {
        this.clients = clients;
    }

    public JsonNode commit(JsonNode request) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (JsonNode entry : request.get("offsets")) {
            TopicPartition partition = new TopicPartition(Clients.text(entry, "topic"), entry.get("partition").intValue());
            offsets.put(partition, new OffsetAndMetadata(entry.get("offset").longValue()));
        }
        clients.admin(request).alterConsumerGroupOffsets(Clients.text(request, "group"), offsets).all().get();
        return Clients.object();
    }

    /** Reads as a member of the group from where it stands, "count" records or to the end, commits, and leaves: the numbers of the records. */
    public JsonNode consume(JsonNode request) throws Exception {
        String topic = Clients.text(request, "topic");
        long count = request.get("count").longValue();
        ArrayNode numbers = Clients.NODES.arrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer = member(request)) {
            Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
            while (numbers.size() < count) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    if (numbers.size() < count) {
                        numbers.add(Long.parseLong(new String(record.value(), "UTF-8").split("/")[1]));
                        next.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1, "at " + record.offset()));
                    }
                }
                Set<TopicPartition> all = consumer.assignment();
                if (!all.isEmpty() && numbers.size() < count) {
                    Map<TopicPartition, Long> ends = consumer.endOffsets(all);
                    if (all.stream().allMatch(partition -> consumer.position(partition) >= ends.get(partition))) {
                        next.clear();
                        all.forEach(partition -> next.put(partition, new OffsetAndMetadata(consumer.position(partition))));
                        break;
                    }
                }
            }
            consumer.commitSync(next);
        }
        return numbers;
    }

    private KafkaConsumer<byte[], byte[]> member(JsonNode request) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("group.id", Clients.text(request, "group"));
        settings.put("auto.offset.reset", Clients.text(request, "reset"));
        settings.put("group.protocol", Clients.text(request, "protocol"));
        KafkaConsumer<byte[], byte[]> consumer = clients.consumer(Clients.text(request, "bootstrap"), "read_committed", settings);
        consumer.subscribe(List.of(Clients.text(request, "topic")));
        return consumer;
    }

    /** A member that stays: it has its partitions when this returns, and commits nothing. */
    public JsonNode join(JsonNode request) throws Exception {
        Member member = new Member(member(request));
        member.start();
        while (!member.assigned) {
            Thread.sleep(20);
        }
        long handle = handles.incrementAndGet();
        members.put(handle, member);
        ObjectNode answer = Clients.object();
        answer.put("handle", handle);
        return answer;
    }

    public JsonNode leave(JsonNode request) throws Exception {
        Member member = members.get(request.get("handle").longValue());
        member.ended = true;
        member.join();
        return Clients.object();
    }

    private static final class Member extends Thread {
        private final KafkaConsumer<byte[], byte[]> consumer;
        volatile boolean assigned;
        volatile boolean ended;

        Member(KafkaConsumer<byte[], byte[]> consumer) {
            this.consumer = consumer;
            setDaemon(true);
        }

        @Override
        public void run() {
            try (consumer) {
                while (!ended) {
                    consumer.poll(Duration.ofMillis(50));
                    assigned = !consumer.assignment().isEmpty();
                }
            }
        }
    }

    /** What MirrorMaker 2's client tells an application of a group of the cluster "source". */
    public JsonNode translated(JsonNode request) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", Clients.text(request, "bootstrap"));
        ArrayNode answer = Clients.NODES.arrayNode();
        RemoteClusterUtils.translateOffsets(settings, Clients.text(request, "source"), Clients.text(request, "group"), Duration.ofSeconds(30))
            .entrySet().stream()
            .sorted(Comparator.comparing(entry -> entry.getKey().toString()))
            .forEach(entry -> add(answer, entry));
        return answer;
    }

    /** The names of the topics of checkpoints that MirrorMaker 2's client finds. */
    public JsonNode checkpointTopics(JsonNode request) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", Clients.text(request, "bootstrap"));
        ArrayNode answer = Clients.NODES.arrayNode();
        RemoteClusterUtils.checkpointTopics(settings).stream().sorted().forEach(answer::add);
        return answer;
    }

    private static void add(ArrayNode answer, Map.Entry<TopicPartition, OffsetAndMetadata> entry) {
        ObjectNode offset = answer.addObject();
        offset.put("topic", entry.getKey().topic());
        offset.put("partition", entry.getKey().partition());
        offset.put("offset", entry.getValue().offset());
        offset.put("metadata", entry.getValue().metadata());
    }

    public JsonNode committed(JsonNode request) throws Exception {
        ArrayNode answer = Clients.NODES.arrayNode();
        clients.admin(request).listConsumerGroupOffsets(Clients.text(request, "group"))
            .partitionsToOffsetAndMetadata().get().entrySet().stream()
            .filter(entry -> entry.getValue() != null)
            .sorted(Comparator.comparing(entry -> entry.getKey().toString()))
            .forEach(entry -> add(answer, entry));
        return answer;
    }
}
