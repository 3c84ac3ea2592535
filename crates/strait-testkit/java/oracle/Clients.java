package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Makes Kafka's clients: admins are kept per cluster, consumers and producers belong to their command. */
public final class Clients {
    static final JsonNodeFactory NODES = JsonNodeFactory.instance;

    private final Map<String, Admin> admins = new ConcurrentHashMap<>();

    Admin admin(JsonNode request) {
        return admins.computeIfAbsent(text(request, "bootstrap"), bootstrap -> {
            Map<String, Object> settings = connection(bootstrap);
            settings.put("request.timeout.ms", 15_000);
            settings.put("default.api.timeout.ms", 60_000);
            settings.put("metadata.max.age.ms", 5_000);
            return Admin.create(settings);
        });
    }

    /** The addresses, and on lines of their own any settings of the connection (security, for example). */
    private static Map<String, Object> connection(String bootstrap) {
        String[] lines = bootstrap.split("\n");
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", lines[0]);
        for (int i = 1; i < lines.length; i++) {
            String[] setting = lines[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        return settings;
    }

    KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String isolation) {
        return consumer(bootstrap, isolation, Map.of());
    }

    KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String isolation, Map<String, Object> more) {
        Map<String, Object> settings = connection(bootstrap);
        settings.put("isolation.level", isolation);
        settings.put("auto.offset.reset", "none"); // a reader that is silently moved is no judge
        settings.put("enable.auto.commit", false);
        settings.put("check.crcs", true);
        settings.put("max.poll.records", 5_000);
        settings.put("max.partition.fetch.bytes", 8 << 20);
        settings.put("fetch.max.wait.ms", 100);
        settings.put("default.api.timeout.ms", 60_000);
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> settings) {
        Map<String, Object> all = connection(bootstrap);
        all.put("acks", "all");
        all.put("max.request.size", 16 << 20);
        // Long enough for a broker that is killed and started again: a workload has no holes then.
        all.put("delivery.timeout.ms", 600_000);
        all.put("request.timeout.ms", 15_000);
        all.put("max.block.ms", 300_000);
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static String text(JsonNode request, String field) {
        JsonNode value = request.get(field);
        if (value == null || !value.isTextual()) {
            throw new IllegalArgumentException("the request has no text field " + field + ": " + request);
        }
        return value.textValue();
    }

    static ObjectNode object() {
        return NODES.objectNode();
    }
}
