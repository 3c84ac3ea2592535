package oracle;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** Offsets of consumer groups without members. */
public final class Groups {
    private final Clients clients;

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

    public JsonNode committed(JsonNode request) throws Exception {
        ArrayNode answer = Clients.NODES.arrayNode();
        clients.admin(request).listConsumerGroupOffsets(Clients.text(request, "group"))
            .partitionsToOffsetAndMetadata().get().entrySet().stream()
            .filter(entry -> entry.getValue() != null)
            .sorted(Comparator.comparing(entry -> entry.getKey().toString()))
            .forEach(entry -> {
                ObjectNode offset = answer.addObject();
                offset.put("topic", entry.getKey().topic());
                offset.put("partition", entry.getKey().partition());
                offset.put("offset", entry.getValue().offset());
            });
        return answer;
    }
}
