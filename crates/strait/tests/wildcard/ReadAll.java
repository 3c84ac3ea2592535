import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A consumer as an application has it, subscribed to a pattern of topics: reads from what its group has committed, or from the
 * beginning, to the ends, commits, and leaves. Prints topic and value of each record, the value up to its second slash.
 * Arguments: bootstrap, group, pattern.
 */
public final class ReadAll {
    public static void main(String[] args) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", args[0]);
        settings.put("group.id", args[1]);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("isolation.level", "read_committed");
        settings.put("key.deserializer", StringDeserializer.class);
        settings.put("value.deserializer", StringDeserializer.class);
        StringBuilder read = new StringBuilder();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(Pattern.compile(args[2]));
            boolean ended = false;
            while (!ended) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    String[] parts = record.value().split("/");
                    read.append(record.topic()).append(' ').append(parts[0]).append('/').append(parts[1]).append('\n');
                }
                Set<TopicPartition> all = consumer.assignment();
                Map<TopicPartition, Long> ends = consumer.endOffsets(all);
                ended = !all.isEmpty() && all.stream().allMatch(p -> consumer.position(p) >= ends.get(p));
            }
            consumer.commitSync();
        }
        System.out.print(read);
    }
}
