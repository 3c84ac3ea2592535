// Writes the *.bin files beside it with Kafka's own classes; with file names as arguments, prints what Kafka
// reads in them. Made with kafka-clients 4.3.1: java -cp "$KAFKA/libs/*" Batches.java [FILE...]

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Predicate;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.utils.BufferSupplier;

public class Batches {
    static SimpleRecord[] records(int big) {
        byte[] value = new byte[big];
        for (int i = 0; i < big; i++) value[i] = (byte) ((i * 7 + i / 256) & 0xff);
        Header[] headers = {
            new RecordHeader("a", "1".getBytes()), new RecordHeader("a", (byte[]) null), new RecordHeader("b", new byte[0])
        };
        return new SimpleRecord[] {
            new SimpleRecord(1700000001000L, "k1".getBytes(), "v1".getBytes(), headers),
            new SimpleRecord(1700000001005L, (byte[]) null, value, new Header[0]),
            new SimpleRecord(1700000000900L, "k3".getBytes(), (byte[]) null, new Header[0]),
        };
    }

    static MemoryRecords batch(Compression codec, int sequence, boolean transactional, int big) {
        return MemoryRecords.withRecords((byte) 2, 1234L, codec, TimestampType.CREATE_TIME, 77L, (short) 3, sequence, 9,
            transactional, records(big));
    }

    /** What the log cleaner makes of a batch. */
    static ByteBuffer clean(MemoryRecords records, Predicate<Record> keep) {
        ByteBuffer out = ByteBuffer.allocate(1 << 20);
        records.filterTo(new MemoryRecords.RecordFilter(1800000000000L, 86400000L) {
            @Override
            protected BatchRetentionResult checkBatchRetention(RecordBatch batch) {
                return new BatchRetentionResult(BatchRetention.RETAIN_EMPTY, false);
            }

            @Override
            protected boolean shouldRetainRecord(RecordBatch batch, Record record) {
                return keep.test(record);
            }
        }, out, BufferSupplier.NO_CACHING);
        out.flip();
        return out;
    }

    static void write(String name, ByteBuffer from) throws Exception {
        byte[] bytes = new byte[from.remaining()];
        from.duplicate().get(bytes);
        Files.write(Path.of(name + ".bin"), bytes);
    }

    static void print(String file) throws Exception {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(Path.of(file))));
        System.out.println(file);
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            System.out.println("  " + batch + " " + batch.deleteHorizonMs());
            for (Record record : batch) {
                record.ensureValid();
                System.out.println("    " + record.offset() + "@" + record.timestamp() + " key " + record.keySize()
                    + " value " + record.valueSize() + " headers " + record.headers().length);
            }
        }
    }

    public static void main(String[] files) throws Exception {
        for (String file : files) print(file);
        if (files.length > 0) return;
        write("none", batch(Compression.NONE, 2147483646, true, 10).buffer());
        write("gzip", batch(Compression.gzip().build(), 2147483646, true, 100000).buffer());
        write("snappy", batch(Compression.snappy().build(), 2147483646, true, 100000).buffer());
        write("lz4", batch(Compression.lz4().build(), 2147483646, true, 100000).buffer());
        write("zstd", batch(Compression.zstd().build(), 2147483646, true, 100000).buffer());
        MemoryRecords plain = batch(Compression.NONE, 10, false, 10);
        write("horizon", clean(plain, record -> true));
        write("horizon_holes", clean(plain, record -> record.offset() != 1235));
        write("emptied", clean(plain, record -> false));
        write("holes", clean(batch(Compression.gzip().build(), 10, false, 10), record -> record.offset() == 1235));
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1000), (byte) 2, Compression.NONE,
            TimestampType.LOG_APPEND_TIME, 1234L, 1700000009999L, -1L, (short) -1, -1, false, 9);
        for (SimpleRecord record : records(10)) builder.append(record);
        write("append_time", builder.build().buffer());
        for (ControlRecordType type : new ControlRecordType[] {ControlRecordType.COMMIT, ControlRecordType.ABORT})
            write(type.name().toLowerCase(), MemoryRecords.withEndTransactionMarker(
                5L, 1700000000000L, 4, 77L, (short) 3, new EndTransactionMarker(type, 0)).buffer());
        write("legacy1", MemoryRecords.withRecords((byte) 1, 50L, Compression.NONE,
            new SimpleRecord(1700000000000L, "k".getBytes(), "v".getBytes())).buffer());
    }
}
