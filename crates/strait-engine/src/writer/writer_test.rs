use strait_wire::BatchHeader;

use super::*;
use crate::sample::sample;

const US: (i64, i16) = (7, 3);

/// A writer that expects target offset 100, with batches of 10 records from source offset 0.
fn writer(batches: i64) -> (Writer, Ledger) {
    let mut writer = Writer::new(US.0, US.1, 100);
    writer.limit(0); // Nothing is joined.
    for i in 0..batches {
        writer.push(Item::Batch(sample(i * 10, 10).epoch(5).outgoing()));
    }
    (writer, Ledger::begin(0, 100))
}

fn stamp(dispatch: &Dispatch) -> (i64, i16, i32) {
    let header = BatchHeader::parse(&dispatch.batch.concat()).unwrap();
    (
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
    )
}

fn send_all(writer: &mut Writer) -> Vec<Dispatch> {
    std::iter::from_fn(|| writer.next_batch(&pool())).collect()
}

/// The first batch is acknowledged, five are in flight behind it.
fn pipelined() -> (Writer, Ledger, Vec<Dispatch>) {
    let (mut writer, mut ledger) = writer(8);
    let first = writer.next_batch(&pool()).unwrap();
    writer.answer(first.ticket, Answer::Appended(100), &mut ledger, now());
    let sent = send_all(&mut writer);
    (writer, ledger, sent)
}

fn now() -> Instant {
    Instant::now()
}

fn pool() -> Pool {
    Pool::new(0, 0)
}

#[tokio::test(start_paused = true)]
async fn one_batch_until_the_broker_knows_us_then_five() {
    let (mut writer, mut ledger) = writer(8);
    let first = send_all(&mut writer);
    assert_eq!(first.len(), 1);
    assert_eq!(stamp(&first[0]), (7, 3, 0));
    writer.answer(first[0].ticket, Answer::Appended(100), &mut ledger, now());
    let sequences: Vec<i32> = send_all(&mut writer).iter().map(|d| stamp(d).2).collect();
    assert_eq!(sequences, [10, 20, 30, 40, 50]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_continue_is_not_sent() {
    let (mut writer, mut ledger) = writer(1);
    let first = writer.next_batch(&pool()).unwrap();
    writer.answer(first.ticket, Answer::Appended(100), &mut ledger, now());
    writer.push(Item::Batch(sample(20, 10).epoch(5).outgoing()));
    assert!(writer.next_batch(&pool()).is_none(), "10 to 19 are missing");
    let Some(Settled::Reopen(why)) = writer.settle() else {
        panic!("it goes on")
    };
    assert!(why.contains("20 was to be sent where 10"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn small_batches_that_wait_are_sent_as_one() {
    let (mut writer, mut ledger) = writer(8);
    writer.limit(usize::MAX);
    writer.push(Item::Gap {
        reason: GapReason::Control,
        from: 80,
        to: 90,
        source_epoch: 5,
    });
    writer.push(Item::Batch(sample(90, 10).epoch(6).outgoing()));
    let sent = writer.next_batch(&pool()).unwrap();
    let header = BatchHeader::parse(&sent.batch.concat()).unwrap();
    assert_eq!(
        (header.count, stamp(&sent)),
        (80, (7, 3, 0)),
        "up to the hole at 80"
    );
    let held = writer.bytes();
    assert_eq!(sent.size, sent.batch.concat().len());
    // Refused for now: the same records keep their sequences.
    writer.answer(
        sent.ticket,
        Answer::NotAppended(KafkaError(19)),
        &mut ledger,
        now(),
    );
    assert!(matches!(writer.settle(), Some(Settled::Resend(_))));
    let again = writer.next_batch(&pool()).unwrap();
    assert_eq!(
        (again.batch.concat(), writer.bytes()),
        (sent.batch.concat(), held)
    );
    writer.answer(again.ticket, Answer::Appended(100), &mut ledger, now());
    let at = (
        ledger.source_next(),
        ledger.target_next(),
        ledger.next_sequence(),
    );
    assert_eq!((at, ledger.source_epoch()), ((80, 180, 80), 5));
    let last = writer.next_batch(&pool()).unwrap();
    assert_eq!(stamp(&last).2, 80);
    writer.answer(last.ticket, Answer::Appended(180), &mut ledger, now());
    assert_eq!(writer.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_moves_in_order_and_only_over_what_is_acknowledged() {
    let (mut writer, mut ledger, sent) = pipelined();
    writer.answer(sent[1].ticket, Answer::Appended(120), &mut ledger, now());
    assert_eq!((ledger.source_next(), ledger.target_next()), (10, 110));
    writer.answer(sent[0].ticket, Answer::Appended(110), &mut ledger, now());
    let at = (ledger.source_next(), ledger.target_next());
    assert_eq!((at, ledger.next_sequence()), ((30, 130), 30));
    assert_eq!(ledger.source_epoch(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_gap_counts_only_behind_what_comes_before_it() {
    let mut writer = Writer::new(US.0, US.1, 100);
    let mut ledger = Ledger::begin(0, 100);
    writer.push(Item::Batch(sample(0, 10).outgoing()));
    writer.push(Item::Gap {
        reason: GapReason::Control,
        from: 10,
        to: 11,
        source_epoch: 6,
    });
    let first = writer.next_batch(&pool()).unwrap();
    assert!(writer.next_batch(&pool()).is_none());
    writer.advance_ledger(&mut ledger, now());
    assert_eq!(ledger.source_next(), 0);
    writer.answer(first.ticket, Answer::Appended(100), &mut ledger, now());
    assert!(writer.next_batch(&pool()).is_none());
    writer.advance_ledger(&mut ledger, now());
    let at = (ledger.source_next(), ledger.source_epoch());
    assert_eq!(
        (at, ledger.gaps()),
        ((11, 6), vec![(GapReason::Control, 1)])
    );
    assert_eq!((writer.bytes(), writer.sent_epoch()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn what_failed_answers_mean() {
    use Answer::{Appended, Doubt, Fenced, NotAppended, OutOfOrder};
    let refused = || Answer::classify(10, -1, None, Vec::new());
    let lost = || Doubt("closed".to_owned());
    let not = || NotAppended(KafkaError(19));
    // Answers of the five batches in flight, expected at target offsets 110, 120, ...
    let table: [(&str, [Answer; 5]); 9] = [
        ("Resend", [not(), OutOfOrder, OutOfOrder, OutOfOrder, not()]),
        ("Resend", [Appended(110), not(), OutOfOrder, not(), not()]),
        ("Refused", [refused(), OutOfOrder, OutOfOrder, not(), not()]),
        // The broker had forgotten us: it took the successors.
        (
            "Hole",
            [refused(), Appended(110), Appended(120), not(), not()],
        ),
        ("Hole", [not(), Appended(110), OutOfOrder, not(), not()]),
        ("Reopen", [lost(), lost(), lost(), lost(), lost()]),
        // Deduplicated against other records, or a stranger's batch in between: the offset tells.
        (
            "Reopen",
            [Appended(100), Appended(120), not(), not(), not()],
        ),
        ("Reopen", [OutOfOrder, OutOfOrder, OutOfOrder, not(), not()]),
        (
            "Fenced",
            [lost(), lost(), Fenced(KafkaError(47)), not(), not()],
        ),
    ];
    for (expected, answers) in table {
        let (mut writer, mut ledger, sent) = pipelined();
        let said = format!("{answers:?}");
        for (index, (dispatch, answer)) in sent.iter().zip(answers).enumerate() {
            assert_eq!(writer.settle(), None, "{index} answers of {said}");
            writer.answer(dispatch.ticket, answer, &mut ledger, now());
        }
        let settled = format!("{:?}", writer.settle());
        assert!(
            settled.contains(&format!("Some({expected}")),
            "{settled}: {said}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_resend_gives_the_same_records_the_same_sequences() {
    let (mut writer, mut ledger, sent) = pipelined();
    writer.answer(sent[0].ticket, Answer::Appended(110), &mut ledger, now());
    for dispatch in &sent[1..] {
        let not = Answer::NotAppended(KafkaError(19));
        writer.answer(dispatch.ticket, not, &mut ledger, now());
    }
    assert!(matches!(writer.settle(), Some(Settled::Resend(_))));
    let again = send_all(&mut writer);
    assert_eq!(again.len(), 1, "one at a time until the first answer");
    assert_eq!(again[0].batch, sent[1].batch);
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_refused_record_before_it_is_recorded() {
    let (mut writer, mut ledger) = writer(1);
    writer.push(Item::Gap {
        reason: GapReason::Refused,
        from: 10,
        to: 11,
        source_epoch: 5,
    });
    writer.push(Item::Batch(sample(11, 10).outgoing()));
    let first = writer.next_batch(&pool()).unwrap();
    writer.answer(first.ticket, Answer::Appended(100), &mut ledger, now());
    assert!(writer.next_batch(&pool()).is_none());
    writer.advance_ledger(&mut ledger, now());
    assert!(writer.at_loss() && !writer.ready());
    assert_eq!(
        (ledger.source_next(), ledger.gaps()),
        (11, vec![(GapReason::Refused, 1)])
    );
    writer.loss_recorded();
    let next = writer.next_batch(&pool()).unwrap();
    assert_eq!(stamp(&next).2, 10, "sequences go on");
}

#[tokio::test(start_paused = true)]
async fn beside_other_writers_an_acknowledgement_may_skip_their_records() {
    let (writer, mut ledger) = writer(8);
    let mut writer = writer.shared(true);
    let first = writer.next_batch(&pool()).unwrap();
    writer.answer(first.ticket, Answer::Appended(107), &mut ledger, now());
    assert_eq!((ledger.source_next(), ledger.target_next()), (10, 117));
    let second = writer.next_batch(&pool()).unwrap();
    writer.answer(second.ticket, Answer::Appended(110), &mut ledger, now());
    assert!(matches!(writer.settle(), None | Some(Settled::Reopen(_))));
    assert_eq!(ledger.source_next(), 10, "a lower one stays a doubt");
}
