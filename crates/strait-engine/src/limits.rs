//! Every bound the engine obeys, in one place, with the relations between them checked at compile time.

use std::time::Duration;

/// How long a proof of ownership allows writing, counted from the moment the proof was *sent*.
pub const LEASE_VALIDITY: Duration = Duration::from_secs(10);
/// How often the lease is renewed.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(3);
/// How long a foreign, unclosed lease is watched before it counts as abandoned.
pub const LEASE_WATCH: Duration = Duration::from_secs(5);
/// How long a process that was taken over looks for its successor's name before it stops.
pub const SUCCESSOR_WAIT: Duration = Duration::from_secs(5);
/// How often a shard runs a barrier of its own, so that its transactional id never reaches
/// `transactional.id.expiration.ms` (7 days by default) under a running process.
pub const BARRIER_REFRESH: Duration = Duration::from_secs(24 * 3600);

/// Unsynced bytes of a flow that make a sync due.
pub const SYNC_BYTES: u64 = 4 * MIB;
/// Age of the oldest unsynced record that makes a sync due.
pub const SYNC_AGE: Duration = Duration::from_secs(1);
/// Syncs written in one batch at the most.
pub const SYNCS_PER_BATCH: usize = 2_000;
/// Unsynced bytes at which a flow pauses until its syncs get through again.
pub const UNSYNCED_MAX: u64 = 1024 * MIB;

/// A batch below this size is joined with those that wait behind it: from here on the copy costs more than the
/// target saves.
pub const JOIN_BELOW: usize = 48 * 1024;
/// The same for compressed batches, which have to be inflated and compressed anew: worth it only for very small ones.
pub const JOIN_COMPRESSED_BELOW: usize = 1024;
/// What compressed batches that are joined may inflate to together.
pub const JOIN_INFLATE_BYTES: usize = 4 * MIB as usize;
/// Bytes of a joined batch: below the `max.message.bytes` that brokers have by default (1,048,588).
pub const JOIN_BYTES: usize = 1_000_000;

/// Batches of one partition in flight at the most: what a broker remembers for deduplication.
pub const IN_FLIGHT_PER_PARTITION: usize = 5;
/// Produce requests in flight on one connection.
pub const REQUESTS_PER_CONNECTION: usize = 6;
/// Record bytes in one produce request at the most; a larger single batch travels alone.
pub const PRODUCE_BYTES: usize = 4 * MIB as usize;
/// Produce connections to one target broker: it handles one request of a connection at a time.
pub const CHANNELS_PER_BROKER: u8 = 2;
/// A broker that answers nothing for so long holds memory that others could use.
pub const STALL: Duration = Duration::from_secs(2);
/// Record bytes asked of one source broker in one fetch. One slice of an answer that waits for its acknowledgement keeps
/// the whole answer in memory.
pub const FETCH_BYTES: i32 = 8 * MIB as i32;
/// Record bytes asked of one source partition in one fetch.
pub const FETCH_PARTITION_BYTES: i32 = MIB as i32;
/// Record bytes asked of a partition at the least: so many flows that are behind share one fetch that all of them can be
/// served, and the next ones have their turn with the next.
pub const FETCH_LEAST_BYTES: i32 = 64 * 1024;
/// Partitions asked for in one fetch of flows that have caught up: all of them, so that none waits for the long
/// poll of others.
pub const TAIL_PARTITIONS: usize = 20_000;
/// Fetches outstanding on one lane: the broker reads the next while the last one is on its way.
pub const FETCHES_PER_LANE: usize = 2;
/// The round trip for which each further lane is opened.
pub const ROUND_TRIP_PER_LANE: Duration = Duration::from_millis(5);
/// Lanes for flows that have caught up: one is polled, the other takes those that join meanwhile.
pub const TAIL_LANES: u8 = 2;
/// Bytes that all who read partitions outside of the lanes ask one cluster for at a time, about.
pub const READ_BYTES: i32 = 4 * MIB as i32;
/// What each of them may ask for, however many they are.
pub const READ_LEAST_BYTES: i32 = 64 * 1024;
/// Free buffers kept for the next answers: a few of the largest.
pub const IDLE_BUFFERS: usize = 4 * FETCH_BYTES as usize;
/// A free buffer that was not needed for so long goes back to the system.
pub const IDLE_BUFFERS_FOR: Duration = Duration::from_secs(2);
/// Bytes a flow may hold (queued and unacknowledged) before it stops fetching.
pub const FLOW_BYTES: u64 = 4 * MIB;
/// What one batch that has to be decoded may inflate to, if that is more than its share of the memory budget.
pub const DECODE_LEAST_BYTES: usize = 32 * MIB as usize;
/// The share of the memory budget, as its divisor, that one batch may inflate to.
pub const DECODE_SHARE: u64 = 4;

/// The timeout of a request that the broker answers from memory or after replication.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the broker itself may wait for replicas before it answers a produce request.
pub const PRODUCE_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of the transactions that carry barriers; they never hold data.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);
/// Partitions in one barrier round at the most.
pub const BARRIER_PARTITIONS: usize = 1_000;
/// How long a barrier round waits for others to join.
pub const BARRIER_GATHER: Duration = Duration::from_millis(10);
/// Pause before a broker is asked again that gave nothing at once: between the end of what may be read and the log end
/// brokers do not wait.
pub const EMPTY_PAUSE: Duration = Duration::from_millis(20);
/// The longest such pause, where nothing comes for long.
pub const EMPTY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The share of the memory budget, as its divisor, that remembers records to find positions by content, 16 bytes each;
/// one flow may take half of it. What was forwarded beyond that is repeated.
pub const MATCH_SHARE: usize = 4;
/// Records that are remembered however small the budget is: 64 KiB.
pub const MATCH_LEAST_RECORDS: usize = 4_096;
/// Partitions whose position is taken over from MirrorMaker 2.
pub const MM2_PARTITIONS: usize = 200_000;
/// Connectors whose positions may count for one link: those that ran one after the other.
pub const MM2_CONNECTORS: usize = 1_000;
/// What may be read of each side of a partition to find the beginning of what MirrorMaker 2 copied, where no offset sync
/// of its own tells a record that stands on both.
pub const SEEK_BYTES: usize = 64 * MIB as usize;
/// How long that may take.
pub const SEEK_TIME: Duration = Duration::from_secs(120);
/// Offsets at the end of the target by which the size of its records is told.
pub const SEEK_SAMPLE: i64 = 1_000;
/// Positions being found by content at the same time.
pub const MATCHING_FLOWS: u32 = 4;
/// Waiting time after the first failure of a flow; doubles up to [`BACKOFF_PASSING`], where the cause may pass by itself.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait between two tries of a flow whose trouble may pass by itself, where the link has few flows; of many
/// each waits longer, up to [`BACKOFF_MAX`].
pub const BACKOFF_PASSING: Duration = Duration::from_secs(4);
/// That for each flow of a link with many: all together try about a hundred times a second.
pub const BACKOFF_EACH: Duration = Duration::from_millis(10);
/// The longest wait between two tries of a flow, and the wait of one that stopped.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest wait because a broker throttles: a quota may be taken away meanwhile.
pub const THROTTLED_MAX: Duration = Duration::from_secs(10);
/// How often routes are asked for again while some flow misses one, and at the most.
pub const ROUTES_MIN_AGE: Duration = Duration::from_millis(250);
/// How often they are asked for at the least while partitions have no leader, or the cluster cannot be asked.
pub const ROUTES_PAUSE_MAX: Duration = Duration::from_secs(4);
/// How often routes are asked for without a cause.
pub const ROUTES_MAX_AGE: Duration = Duration::from_secs(60);
/// How often a trouble that lasts is said.
pub const REMIND: Duration = Duration::from_secs(60);
/// How often an open transaction that holds a flow back is reported again.
pub const OPEN_TRANSACTION_REMIND: Duration = Duration::from_secs(600);
/// When the producer of an open transaction is asked for again where the question was not answered.
pub const OPEN_TRANSACTION_RETRY: Duration = Duration::from_secs(10);
/// Flows being opened at the same time.
pub const OPENING_FLOWS: usize = 256;
/// Producer ids of applications that a link remembers, where it has to know who writes to its source.
pub const PRODUCERS_KNOWN: usize = 65_536;
/// `producer.id.expiration.ms` where the broker does not tell: Apache Kafka's default.
pub const PRODUCER_ID_EXPIRATION: Duration = Duration::from_secs(24 * 3600);

const MIB: u64 = 1024 * 1024;

const _: () = assert!(LEASE_RENEWAL.as_secs() * 3 < LEASE_VALIDITY.as_secs());
const _: () = assert!(LEASE_WATCH.as_secs() > LEASE_RENEWAL.as_secs());
const _: () = assert!(SYNC_BYTES <= UNSYNCED_MAX);
const _: () = assert!((FETCH_PARTITION_BYTES as u64) <= FLOW_BYTES);
