import java.io.FileInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.connect.mirror.MirrorMaker;

/** MirrorMaker 2 in its dedicated mode, with a file of properties, until another file is there. */
public final class MirrorMaker2 {
    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        try (FileInputStream file = new FileInputStream(args[0])) {
            properties.load(file);
        }
        Map<String, String> config = new HashMap<>();
        properties.forEach((key, value) -> config.put(key.toString(), value.toString()));
        MirrorMaker maker = new MirrorMaker(config);
        maker.start();
        while (!Files.exists(Path.of(args[1]))) {
            Thread.sleep(100);
        }
        System.exit(0);
    }
}
