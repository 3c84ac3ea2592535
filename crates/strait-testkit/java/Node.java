import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.Stream;

/**
 * One Kafka node in one JVM: formats its storage the first time, then runs {@code kafka.Kafka}.
 *
 * <p>Arguments: the cluster's directory, the node's directory in it, the node's properties file, then the arguments of
 * {@code StorageTool format}.
 *
 * <p>The parent holds the other end of stdin and never writes to it. End of file means that the parent is gone, however
 * it went: the node then halts and removes the cluster's directory, so that a killed test leaves neither a process nor data.
 */
public final class Node {
    private Node() {}

    public static void main(String[] args) throws Exception {
        Path cluster = Path.of(args[0]);
        Path node = Path.of(args[1]);
        String properties = args[2];
        String[] format = Arrays.copyOfRange(args, 3, args.length);
        haltWithParent(System.in, cluster);
        if (!Files.exists(node.resolve("data").resolve("meta.properties"))) {
            int code = kafka.tools.StorageTool.execute(format, System.err);
            if (code != 0) {
                System.err.println("StorageTool format failed with exit code " + code);
                Runtime.getRuntime().halt(3);
            }
        }
        kafka.Kafka.main(new String[] {properties});
    }

    static void haltWithParent(InputStream stdin, Path directory) {
        Thread watcher = new Thread(() -> {
            try {
                while (stdin.read() >= 0) {
                    // Nothing is ever sent: only the end matters.
                }
            } catch (IOException closed) {
                // A broken pipe says the same as its end.
            }
            if (directory != null && System.getenv("STRAIT_KAFKA_KEEP") == null) {
                remove(directory);
            }
            Runtime.getRuntime().halt(4);
        }, "halt-with-parent");
        watcher.setDaemon(true);
        watcher.start();
    }

    static void remove(Path directory) {
        // The broker still writes while its files go: a few passes leave nothing that matters.
        for (int pass = 0; pass < 3 && Files.exists(directory); pass++) {
            try (Stream<Path> tree = Files.walk(directory)) {
                tree.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
            } catch (IOException | RuntimeException vanished) {
                // Files vanish under the walk.
            }
        }
    }
}
