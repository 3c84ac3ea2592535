import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.connect.mirror.Checkpoint;

/** The last checkpoint of every group and partition, as MirrorMaker 2's own client decodes it, once none is new for some seconds. */
public final class Checkpoints {
    public static void main(String[] args) {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0]);
        long quiet = Long.parseLong(args[2]) * 1_000;
        TopicPartition partition = new TopicPartition(args[1] + ".checkpoints.internal", 0);
        Map<String, String> last = new TreeMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long until = System.currentTimeMillis() + quiet;
            while (System.currentTimeMillis() < until) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    Checkpoint checkpoint = Checkpoint.deserializeRecord(record);
                    String key = checkpoint.consumerGroupId() + " " + checkpoint.topicPartition().topic() + " " + checkpoint.topicPartition().partition();
                    String value = checkpoint.upstreamOffset() + " " + checkpoint.downstreamOffset();
                    if (!value.equals(last.put(key, value))) {
                        until = System.currentTimeMillis() + quiet;
                    }
                }
            }
        }
        last.forEach((key, value) -> System.out.println(key + " " + value));
    }
}
