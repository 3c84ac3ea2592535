import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.connect.cli.ConnectDistributed;
import org.apache.kafka.connect.runtime.Connect;

/**
 * A Connect worker: {@code BOOTSTRAP FOLDER LINES [create]}. It runs until the file {@code out} of the folder has so
 * many lines, and ends cleanly. With {@code create} it is told of two connectors over its REST port first: one writes the
 * lines of the file {@code in} to topic {@code through-connect}, the other writes that topic to {@code out}.
 */
public final class Worker {
    private static final String FILES = "org.apache.kafka.connect.file.FileStream";

    public static void main(String[] args) throws Exception {
        Path folder = Path.of(args[1]);
        Map<String, String> settings = new HashMap<>(Map.of(
            "bootstrap.servers", args[0],
            "group.id", "connect-moving",
            "key.converter", "org.apache.kafka.connect.storage.StringConverter",
            "value.converter", "org.apache.kafka.connect.storage.StringConverter",
            "config.storage.topic", "connect-moving-configs",
            "offset.storage.topic", "connect-moving-offsets",
            "status.storage.topic", "connect-moving-status",
            "offset.flush.interval.ms", "500",
            "listeners", "http://127.0.0.1:0",
            "plugin.discovery", "service_load"));
        for (String topic : new String[] {"config", "offset", "status"}) {
            settings.put(topic + ".storage.replication.factor", "1");
        }
        settings.put("offset.storage.partitions", "3");
        settings.put("task.shutdown.graceful.timeout.ms", "60000");
        Connect<?> connect = new ConnectDistributed().startConnect(settings);
        try {
            if (args.length > 3) {
                String url = connect.rest().serverUrl().resolve("/").toString();
                create(url, "reader", "Source", "\"topic\":\"through-connect\",\"file\":\"" + folder.resolve("in") + "\"");
                create(url, "writer", "Sink", "\"topics\":\"through-connect\",\"file\":\"" + folder.resolve("out") + "\"");
            }
            Instant end = Instant.now().plusSeconds(180);
            while (lines(folder) < Long.parseLong(args[2])) {
                if (Instant.now().isAfter(end)) {
                    throw new IllegalStateException("only " + lines(folder) + " lines came through");
                }
                Thread.sleep(20);
            }
        } finally {
            connect.stop();
            connect.awaitStop();
        }
        System.exit(0);
    }

    private static long lines(Path folder) throws Exception {
        Path out = folder.resolve("out");
        return Files.exists(out) ? Files.readAllLines(out).size() : 0;
    }

    /** The worker answers once it has joined its group. */
    private static void create(String url, String name, String kind, String more) throws Exception {
        String body = "{\"name\":\"" + name + "\",\"config\":{\"connector.class\":\"" + FILES + kind + "Connector\",\"tasks.max\":\"1\"," + more + "}}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + "connectors"))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
        Instant end = Instant.now().plusSeconds(180);
        while (true) {
            HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() == 201) {
                return;
            }
            // It still joins its group, or makes its topics.
            boolean early = answer.statusCode() == 409 || answer.statusCode() >= 500;
            if (!early || Instant.now().isAfter(end)) {
                throw new IllegalStateException(answer.statusCode() + ": " + answer.body());
            }
            Thread.sleep(100);
        }
    }
}
