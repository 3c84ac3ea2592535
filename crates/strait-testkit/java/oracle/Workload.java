package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.SplittableRandom;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Which records a workload consists of: record number {@code id} is the same in every run with the same seed. */
final class Workload {
    private static final String[] WORDS = {
        "order", "payment", "customer", "shipped", "pending", "amount", "currency", "EUR", "status", "warehouse", "north",
        "returned", "invoice", "2026-11-21", "quantity", "true", "null", "express", "item", "discount"};

    private final String topic;
    private final int partitions;
    private final JsonNode spec;
    private final long seed;
    private final int size;
    private final int sizeTo;
    private final long keys;
    private final long nullKeyEvery;
    private final long nullValueEvery;
    private final boolean incompressible;
    private final byte[] text = new byte[1 << 16];

    Workload(JsonNode spec, int partitions) {
        this.spec = spec;
        this.partitions = partitions;
        topic = Clients.text(spec, "topic");
        seed = spec.path("seed").asLong();
        size = spec.path("size").asInt(100);
        sizeTo = Math.max(size, spec.path("size_to").asInt(size));
        keys = spec.path("keys").asLong();
        nullKeyEvery = spec.path("null_key_every").asLong();
        nullValueEvery = spec.path("null_value_every").asLong();
        incompressible = spec.path("incompressible").asBoolean();
        SplittableRandom random = new SplittableRandom(seed);
        StringBuilder words = new StringBuilder();
        while (words.length() < text.length) {
            words.append(WORDS[random.nextInt(WORDS.length)]).append(' ');
        }
        System.arraycopy(words.toString().getBytes(StandardCharsets.US_ASCII), 0, text, 0, text.length);
    }

    ProducerRecord<byte[], byte[]> record(long id) {
        SplittableRandom random = new SplittableRandom(seed ^ (id * 0x9E3779B97F4A7C15L));
        int partition = spec.hasNonNull("partition")
            ? spec.get("partition").intValue()
            : (int) (id % partitions);
        Long timestamp = spec.hasNonNull("timestamp")
            ? Long.valueOf(spec.get("timestamp").longValue() + id * spec.path("timestamp_step").asLong())
            : null;
        byte[] key = every(nullKeyEvery, id + 1) ? null : bytes("key-" + (keys > 0 ? id % keys : id));
        byte[] value = every(nullValueEvery, id) ? null : value(id, random);
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, partition, timestamp, key, value);
        headers(record, id, random);
        return record;
    }

    private static boolean every(long n, long id) {
        return n > 0 && id % n == 0;
    }

    /** The seed and the id, so that no two records of a test are equal, then filler. */
    private byte[] value(long id, SplittableRandom random) {
        byte[] name = bytes(seed + "/" + id + "/");
        int length = Math.max(name.length, sizeTo > size ? random.nextInt(size, sizeTo + 1) : size);
        byte[] value = new byte[length];
        System.arraycopy(name, 0, value, 0, name.length);
        int at = name.length;
        if (incompressible) {
            byte[] noise = new byte[length - at];
            random.nextBytes(noise);
            System.arraycopy(noise, 0, value, at, noise.length);
            return value;
        }
        while (at < length) {
            int from = random.nextInt(text.length - 64);
            int part = Math.min(length - at, Math.min(1024, text.length - from));
            System.arraycopy(text, from, value, at, part);
            at += part;
        }
        return value;
    }

    private void headers(ProducerRecord<byte[], byte[]> record, long id, SplittableRandom random) {
        switch (spec.path("headers").asText("none")) {
            case "plain" -> {
                record.headers().add("id", bytes(Long.toString(id)));
                record.headers().add("trace", bytes(Long.toHexString(random.nextLong())));
            }
            case "odd" -> {
                // What maps and careless codecs lose: duplicate keys and their order, null, empty, an empty key.
                record.headers().add("id", bytes(Long.toString(id)));
                record.headers().add("hop", bytes("b" + random.nextInt(10)));
                record.headers().add("none", null);
                record.headers().add("hop", bytes("a" + random.nextInt(10)));
                record.headers().add("empty", new byte[0]);
                record.headers().add("", bytes("nameless"));
                record.headers().add("hop", null);
                record.headers().add("größe", new byte[] {0, -1, 127, -128});
            }
            default -> { }
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
