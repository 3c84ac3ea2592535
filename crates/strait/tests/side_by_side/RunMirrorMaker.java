import java.io.FileInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.connect.mirror.MirrorMaker;

/** MirrorMaker 2 in its dedicated mode, {@code FILE STOP}: with this file, until the other one is there. */
public final class RunMirrorMaker {
    public static void main(String[] args) throws Exception {
        Properties file = new Properties();
        try (FileInputStream in = new FileInputStream(args[0])) {
            file.load(in);
        }
        Map<String, String> settings = new HashMap<>();
        file.forEach((key, value) -> settings.put((String) key, (String) value));
        MirrorMaker mirror = new MirrorMaker(settings);
        mirror.start();
        while (!Files.exists(Path.of(args[1]))) {
            Thread.sleep(50);
        }
        mirror.stop();
        mirror.awaitStop();
        System.exit(0);
    }
}
