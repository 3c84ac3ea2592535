package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** Holds two topics against each other, partition by partition and record by record. */
public final class Compare {
    private static final int EXAMPLES = 5;

    private final Reader reader;

    public Compare(Reader reader) {
        this.reader = reader;
    }

    /** A 128-bit hash of a record's content: as good as the content itself, for a judge. */
    private record Hash(long high, long low) {}

    /** The hashes and offsets of one partition's records in order. */
    private static final class Log {
        private long[] words = new long[3 * 1024];
        private int count;

        void add(ConsumerRecord<byte[], byte[]> record, MessageDigest digest) {
            if (3 * count == words.length) {
                words = Arrays.copyOf(words, words.length * 2);
            }
            ByteBuffer hash = ByteBuffer.wrap(digest.digest(Reader.bytes(record)));
            words[3 * count] = record.offset();
            words[3 * count + 1] = hash.getLong();
            words[3 * count + 2] = hash.getLong();
            count++;
        }

        long offset(int index) {
            return index < count ? words[3 * index] : -1;
        }

        Hash hash(int index) {
            return new Hash(words[3 * index + 1], words[3 * index + 2]);
        }
    }

    /** Waits up to "wait_ms" for the second side to have as many records as the first; then reads both to their ends. */
    public JsonNode compare(JsonNode request) {
        JsonNode left = request.get("left");
        JsonNode right = request.get("right");
        Map<Integer, Log> expected = read(left, Map.of(), 0);
        Map<Integer, Log> found = read(right, expected, Reader.deadline(request));
        ArrayNode partitions = Clients.NODES.arrayNode();
        boolean equal = true;
        for (int number = 0; expected.containsKey(number) || found.containsKey(number); number++) {
            Log a = expected.getOrDefault(number, new Log());
            Log b = found.getOrDefault(number, new Log());
            ObjectNode partition = partitions.addObject();
            partition.put("partition", number);
            partition.put("left_count", a.count);
            partition.put("right_count", b.count);
            boolean same = differences(partition, a, b, left, right, number);
            partition.put("equal", same);
            equal &= same;
        }
        ObjectNode answer = Clients.object();
        answer.put("equal", equal);
        answer.set("partitions", partitions);
        return answer;
    }

    private Map<Integer, Log> read(JsonNode side, Map<Integer, Log> expected, long deadline) {
        Map<Integer, Log> logs = new TreeMap<>();
        MessageDigest digest = Reader.sha256();
        try (KafkaConsumer<byte[], byte[]> consumer = reader.consumer(side)) {
            List<TopicPartition> partitions = Reader.partitions(consumer, Clients.text(side, "topic"));
            partitions.forEach(partition -> logs.put(partition.partition(), new Log()));
            Reader.begin(consumer, partitions);
            while (!expected.entrySet().stream().allMatch(e -> count(logs, e.getKey()) >= e.getValue().count)
                    && System.nanoTime() < deadline) {
                consumer.poll(Duration.ofMillis(100)).forEach(record -> logs.get(record.partition()).add(record, digest));
            }
            Reader.toEnd(consumer, partitions, record -> logs.get(record.partition()).add(record, digest));
        }
        return logs;
    }

    private static int count(Map<Integer, Log> logs, int partition) {
        Log log = logs.get(partition);
        return log == null ? 0 : log.count;
    }

    /** Describes how b differs from a; true when it does not. */
    private boolean differences(ObjectNode out, Log a, Log b, JsonNode left, JsonNode right, int number) {
        int first = 0;
        while (first < a.count && first < b.count && a.hash(first).equals(b.hash(first))) {
            first++;
        }
        if (first == a.count && first == b.count) {
            return true;
        }
        Map<Hash, Integer> surplus = new HashMap<>(); // how often b has it more than a
        Map<Hash, Boolean> known = new HashMap<>();
        for (int i = first; i < b.count; i++) {
            surplus.merge(b.hash(i), 1, Integer::sum);
        }
        List<Long> lost = new ArrayList<>();
        for (int i = 0; i < a.count; i++) {
            known.put(a.hash(i), true);
        }
        long lostCount = 0;
        for (int i = first; i < a.count; i++) {
            int left_over = surplus.merge(a.hash(i), -1, Integer::sum);
            if (left_over < 0) {
                lostCount++;
                if (lost.size() < EXAMPLES) {
                    lost.add(a.offset(i));
                }
            }
        }
        long doubledCount = 0;
        long foreignCount = 0;
        List<Long> doubled = new ArrayList<>();
        List<Long> foreign = new ArrayList<>();
        for (int i = b.count - 1; i >= first; i--) {
            Integer more = surplus.get(b.hash(i));
            if (more == null || more <= 0) {
                continue;
            }
            surplus.put(b.hash(i), more - 1);
            List<Long> examples = known.containsKey(b.hash(i)) ? doubled : foreign;
            if (examples == doubled) {
                doubledCount++;
            } else {
                foreignCount++;
            }
            examples.add(0, b.offset(i)); // the earliest are the ones to look at
            if (examples.size() > EXAMPLES) {
                examples.remove(EXAMPLES);
            }
        }
        out.put("lost", lostCount);
        out.put("doubled", doubledCount);
        out.put("foreign", foreignCount);
        out.put("reordered", lostCount + doubledCount + foreignCount == 0);
        lost.forEach(out.putArray("lost_left_offsets")::add);
        doubled.forEach(out.putArray("doubled_right_offsets")::add);
        foreign.forEach(out.putArray("foreign_right_offsets")::add);
        ObjectNode at = out.putObject("first");
        at.put("index", first);
        at.put("left_offset", a.offset(first));
        at.put("right_offset", b.offset(first));
        at.put("left", reader.show(left, new TopicPartition(Clients.text(left, "topic"), number), a.offset(first)));
        at.put("right", reader.show(right, new TopicPartition(Clients.text(right, "topic"), number), b.offset(first)));
        return false;
    }
}
