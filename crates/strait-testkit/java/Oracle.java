import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import oracle.Access;
import oracle.Clients;
import oracle.Compare;
import oracle.Groups;
import oracle.Produce;
import oracle.Reader;
import oracle.Topics;
import org.apache.kafka.connect.mirror.Mm2Reader;

/**
 * Kafka's own clients behind a pipe: one JSON request per line on stdin, one JSON answer per line on stdout, in the order
 * in which they are ready. It ends with its stdin and then removes its directory, its only argument.
 *
 * <p>Request: {@code {"id": 1, "command": "dump", ...}}. Answer: {@code {"id": 1, "ok": {...}}} or
 * {@code {"id": 1, "error": "TimeoutException: ..."}}.
 */
public final class Oracle {
    private static final ObjectMapper JSON = new ObjectMapper();

    private Oracle() {}

    /** A command: takes the request, returns the answer's "ok". */
    private interface Command {
        JsonNode run(JsonNode request) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        System.setOut(System.err); // whatever a library prints must not get between the answers
        Clients clients = new Clients();
        Map<String, Command> commands = commands(clients);
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            JsonNode request = JSON.readTree(line);
            threads.execute(() -> answer(commands, request, answers));
        }
        // Whoever started it is gone, and so is the reader of its log.
        if (System.getenv("STRAIT_KAFKA_KEEP") == null) {
            Node.remove(Path.of(args[0]));
        }
        Runtime.getRuntime().halt(0);
    }

    private static Map<String, Command> commands(Clients clients) {
        Topics topics = new Topics(clients);
        Produce produce = new Produce(clients);
        Reader reader = new Reader(clients);
        Compare compare = new Compare(reader);
        Groups groups = new Groups(clients);
        Access access = new Access(clients);
        return Map.ofEntries(
            Map.entry("create_topic", topics::create),
            Map.entry("delete_topic", topics::delete),
            Map.entry("create_partitions", topics::grow),
            Map.entry("list_topics", topics::list),
            Map.entry("describe_topic", topics::describe),
            Map.entry("alter_configs", topics::alterConfigs),
            Map.entry("delete_records", topics::deleteRecords),
            Map.entry("stored_bytes", topics::storedBytes),
            Map.entry("reassign", topics::reassign),
            Map.entry("elect", topics::elect),
            Map.entry("offsets", reader::offsets),
            Map.entry("dump", reader::dump),
            Map.entry("compare", compare::compare),
            Map.entry("produce", produce::produce),
            Map.entry("send", produce::send),
            Map.entry("start_producer", produce::start),
            Map.entry("stop_producer", produce::stop),
            Map.entry("producer_progress", produce::progress),
            Map.entry("end_transaction", produce::endTransaction),
            Map.entry("mm2_translate", Mm2Reader::translate),
            Map.entry("quota", access::quota),
            Map.entry("allow", access::allow),
            Map.entry("revoke", access::revoke),
            Map.entry("commit_offsets", groups::commit),
            Map.entry("consume_group", groups::consume),
            Map.entry("join_group", groups::join),
            Map.entry("leave_group", groups::leave),
            Map.entry("translated_offsets", groups::translated),
            Map.entry("checkpoint_topics", groups::checkpointTopics),
            Map.entry("committed_offsets", groups::committed));
    }

    private static void answer(Map<String, Command> commands, JsonNode request, PrintStream answers) {
        ObjectNode answer = JSON.createObjectNode();
        answer.set("id", request.get("id"));
        try {
            Command command = commands.get(request.path("command").asText());
            if (command == null) {
                throw new IllegalArgumentException("unknown command " + request.path("command"));
            }
            answer.set("ok", command.run(request));
        } catch (Exception | OutOfMemoryError failure) {
            failure.printStackTrace();
            Throwable cause = failure;
            while ((cause instanceof ExecutionException || cause instanceof CompletionException) && cause.getCause() != null) {
                cause = cause.getCause();
            }
            answer.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
        }
        synchronized (answers) {
            answers.println(answer);
            answers.flush();
        }
    }
}
