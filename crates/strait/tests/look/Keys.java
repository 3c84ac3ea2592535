import java.util.Map;
import java.util.TreeSet;
import org.apache.kafka.connect.mirror.DefaultConfigPropertyFilter;
import org.apache.kafka.connect.mirror.MirrorCheckpointConnector;
import org.apache.kafka.connect.mirror.MirrorHeartbeatConnector;
import org.apache.kafka.connect.mirror.MirrorMakerConfig;
import org.apache.kafka.connect.mirror.MirrorSourceConnector;

/** Every key that MirrorMaker 2 defines, one a line. */
public final class Keys {
    public static void main(String[] args) {
        TreeSet<String> keys = new TreeSet<>();
        keys.addAll(new MirrorSourceConnector().config().names());
        keys.addAll(new MirrorCheckpointConnector().config().names());
        keys.addAll(new MirrorHeartbeatConnector().config().names());
        MirrorMakerConfig whole = new MirrorMakerConfig(Map.of("clusters", "a", "a.bootstrap.servers", "localhost:1"));
        keys.addAll(whole.values().keySet());
        keys.addAll(whole.clientConfig("a").values().keySet());
        keys.add(DefaultConfigPropertyFilter.USE_DEFAULTS_FROM);
        keys.forEach(System.out::println);
    }
}
