package org.apache.kafka.connect.mirror;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import java.util.HashMap;
import java.util.Map;
import java.util.OptionalLong;
import org.apache.kafka.common.TopicPartition;

/**
 * Offset syncs as MirrorMaker 2 reads them: its own store, which reads the topic to its end and translates. It lies in
 * MirrorMaker 2's package because that store is not public.
 */
public final class Mm2Reader {
    private Mm2Reader() {}

    /** Translates "offsets" of a "topic" and "partition" of the cluster "source"; -1 where MirrorMaker 2 would not tell, null where it knows nothing. */
    public static JsonNode translate(JsonNode request) {
        Map<String, String> settings = new HashMap<>();
        settings.put("name", "MirrorCheckpointConnector");
        settings.put("connector.class", MirrorCheckpointConnector.class.getName());
        settings.put("source.cluster.alias", request.get("source").textValue());
        settings.put("target.cluster.alias", "target");
        settings.put("offset-syncs.topic.location", "target");
        settings.put("source.cluster.bootstrap.servers", request.get("bootstrap").textValue());
        settings.put("target.cluster.bootstrap.servers", request.get("bootstrap").textValue());
        TopicPartition partition = new TopicPartition(request.get("topic").textValue(), request.get("partition").intValue());
        ArrayNode answer = JsonNodeFactory.instance.arrayNode();
        try (OffsetSyncStore store = new OffsetSyncStore(new MirrorCheckpointConfig(settings))) {
            store.start(false);
            for (JsonNode offset : request.get("offsets")) {
                OptionalLong translated = store.translateDownstream("a-group", partition, offset.longValue());
                if (translated.isPresent()) {
                    answer.add(translated.getAsLong());
                } else {
                    answer.addNull();
                }
            }
        }
        return answer;
    }
}
