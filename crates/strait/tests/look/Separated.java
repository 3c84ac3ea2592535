import java.time.Duration;
import java.util.Map;
import java.util.TreeSet;
import org.apache.kafka.connect.mirror.MirrorClient;

/** What MirrorMaker 2's own client finds with a separator of its own: {@code BOOTSTRAP SOURCE GROUP SEPARATOR}. */
public final class Separated {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", args[0], "consumer.bootstrap.servers", args[0], "replication.policy.separator", args[3]);
        try (MirrorClient client = new MirrorClient(settings)) {
            for (String topic : new TreeSet<>(client.checkpointTopics())) {
                System.out.println("checkpoints " + topic);
            }
            for (String topic : new TreeSet<>(client.remoteTopics(args[1]))) {
                System.out.println("remote " + topic);
            }
            client.remoteConsumerOffsets(args[2], args[1], Duration.ofSeconds(30))
                .forEach((partition, offset) -> System.out.println("offset " + partition + " " + offset.offset()));
        }
    }
}
