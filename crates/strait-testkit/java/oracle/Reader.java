package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;

/** Reads partitions from end to end with Kafka's own consumer. */
public final class Reader {
    private static final HexFormat HEX = HexFormat.of();

    private final Clients clients;

    public Reader(Clients clients) {
        this.clients = clients;
    }

    /** First and next offset of every partition; the next one is the last stable offset under read_committed. */
    public JsonNode offsets(JsonNode request) {
        ArrayNode answer = Clients.NODES.arrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(request)) {
            List<TopicPartition> partitions = partitions(consumer, Clients.text(request, "topic"));
            Map<TopicPartition, Long> starts = consumer.beginningOffsets(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            for (TopicPartition partition : partitions) {
                answer.addObject().put("start", starts.get(partition)).put("end", ends.get(partition));
            }
        }
        return answer;
    }

    /** What every partition holds: counts, a digest of all records in order and, when asked for, the records. */
    public JsonNode dump(JsonNode request) throws Exception {
        boolean records = request.path("records").asBoolean();
        boolean hashes = request.path("hashes").asBoolean();
        long wanted = request.path("count").asLong(0);
        long deadline = deadline(request);
        ArrayNode answer = Clients.NODES.arrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(request)) {
            List<TopicPartition> partitions = partitions(consumer, Clients.text(request, "topic"));
            Map<TopicPartition, Long> starts = begin(consumer, partitions);
            Map<TopicPartition, Digest> digests = new TreeMap<>(BY_NUMBER);
            partitions.forEach(partition -> digests.put(partition, new Digest(records, hashes)));
            long[] count = {0};
            Consumer<ConsumerRecord<byte[], byte[]>> sink = record -> {
                digests.get(new TopicPartition(record.topic(), record.partition())).add(record);
                count[0]++;
            };
            while (count[0] < wanted && System.nanoTime() < deadline) {
                consumer.poll(Duration.ofMillis(100)).forEach(sink);
            }
            Map<TopicPartition, Long> ends = toEnd(consumer, partitions, sink);
            for (TopicPartition partition : partitions) {
                ObjectNode entry = digests.get(partition).answer();
                entry.put("partition", partition.partition());
                entry.put("start", starts.get(partition));
                entry.put("end", ends.get(partition));
                answer.add(entry);
            }
        }
        return answer;
    }

    static final java.util.Comparator<TopicPartition> BY_NUMBER = java.util.Comparator.comparingInt(TopicPartition::partition);

    KafkaConsumer<byte[], byte[]> consumer(JsonNode request) {
        return clients.consumer(Clients.text(request, "bootstrap"), Clients.text(request, "isolation"));
    }

    static List<TopicPartition> partitions(KafkaConsumer<byte[], byte[]> consumer, String topic) {
        List<TopicPartition> partitions = new ArrayList<>();
        consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
        if (partitions.isEmpty()) {
            throw new IllegalArgumentException("there is no topic " + topic);
        }
        partitions.sort(BY_NUMBER);
        return partitions;
    }

    /** Places the consumer at the first offset of each partition. */
    static Map<TopicPartition, Long> begin(KafkaConsumer<byte[], byte[]> consumer, List<TopicPartition> partitions) {
        consumer.assign(partitions);
        Map<TopicPartition, Long> starts = consumer.beginningOffsets(partitions);
        starts.forEach(consumer::seek);
        return starts;
    }

    /** Reads on to where each partition ends now. The position moves past control batches and aborted records too. */
    static Map<TopicPartition, Long> toEnd(
            KafkaConsumer<byte[], byte[]> consumer, List<TopicPartition> partitions, Consumer<ConsumerRecord<byte[], byte[]>> sink) {
        Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
        Map<TopicPartition, Long> before = Map.of();
        long stuck = System.nanoTime() + 120_000_000_000L;
        while (true) {
            Map<TopicPartition, Long> now = new TreeMap<>(BY_NUMBER);
            partitions.forEach(partition -> now.put(partition, consumer.position(partition)));
            if (now.entrySet().stream().allMatch(entry -> entry.getValue() >= ends.get(entry.getKey()))) {
                return ends;
            }
            if (!now.equals(before)) {
                before = now;
                stuck = System.nanoTime() + 120_000_000_000L;
            } else if (System.nanoTime() > stuck) {
                throw new IllegalStateException("no progress for 120 s, at " + now + " of " + ends);
            }
            consumer.poll(Duration.ofMillis(100)).forEach(sink);
        }
    }

    /** The record at an offset as one short line, for a person. */
    String show(JsonNode side, TopicPartition partition, long offset) {
        if (offset < 0) {
            return null;
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(side)) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, offset);
            long deadline = System.nanoTime() + 20_000_000_000L;
            while (System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    return record.offset() == offset ? show(record) : "(gone)";
                }
            }
            return "(not readable)";
        }
    }

    private static String show(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder line = new StringBuilder();
        line.append("offset ").append(record.offset()).append(", time ").append(record.timestamp());
        line.append(", key ").append(shorten(record.key())).append(", value ").append(shorten(record.value()));
        for (Header header : record.headers()) {
            line.append(", ").append(header.key()).append('=').append(shorten(header.value()));
        }
        return line.toString();
    }

    private static String shorten(byte[] bytes) {
        if (bytes == null) {
            return "null";
        }
        String text = new String(bytes, 0, Math.min(bytes.length, 48), StandardCharsets.ISO_8859_1).replaceAll("[^ -~]", ".");
        return "'" + text + (bytes.length > 48 ? "' of " + bytes.length + " bytes" : "'");
    }

    static long deadline(JsonNode request) {
        return System.nanoTime() + request.path("wait_ms").asLong(0) * 1_000_000L;
    }

    /** Key, value, headers in order and timestamp, so that equal bytes mean equal records; the offset is not part of it. */
    static byte[] bytes(ConsumerRecord<byte[], byte[]> record) {
        try {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream(64 + Math.max(0, record.serializedValueSize()));
            DataOutputStream out = new DataOutputStream(bytes);
            out.writeLong(record.timestamp());
            field(out, record.key());
            field(out, record.value());
            for (Header header : record.headers()) {
                field(out, header.key().getBytes(StandardCharsets.UTF_8));
                field(out, header.value());
            }
            return bytes.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static void field(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null) {
            out.write(bytes);
        }
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has it
        }
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? null : HEX.formatHex(bytes);
    }

    /** What is remembered of one partition while it is read. */
    private static final class Digest {
        private final MessageDigest all = sha256();
        private final MessageDigest one = sha256();
        private final ArrayNode records;
        private final boolean content;
        private long count;
        private long first = -1;
        private long last = -1;

        Digest(boolean content, boolean hashes) {
            this.content = content;
            this.records = content || hashes ? Clients.NODES.arrayNode() : null;
        }

        void add(ConsumerRecord<byte[], byte[]> record) {
            byte[] bytes = bytes(record);
            byte[] hash = one.digest(bytes);
            all.update(hash);
            count++;
            first = first < 0 ? record.offset() : first;
            last = record.offset();
            if (records == null) {
                return;
            }
            ObjectNode entry = records.addObject();
            entry.put("offset", record.offset());
            entry.put("hash", HEX.formatHex(Arrays.copyOf(hash, 16)));
            if (content) {
                entry.put("timestamp", record.timestamp());
                entry.put("timestamp_type", record.timestampType().name);
                entry.put("key", hex(record.key()));
                entry.put("value", hex(record.value()));
                ArrayNode headers = entry.putArray("headers");
                for (Header header : record.headers()) {
                    headers.addArray().add(header.key()).add(hex(header.value()));
                }
            }
        }

        ObjectNode answer() {
            ObjectNode answer = Clients.object();
            answer.put("count", count);
            answer.put("first_offset", first);
            answer.put("last_offset", last);
            answer.put("sha256", HEX.formatHex(all.digest()));
            if (records != null) {
                answer.set("records", records);
            }
            return answer;
        }
    }
}
