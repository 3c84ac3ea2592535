//! What a person probably meant by a word nobody knows.

/// The candidate closest to `word`, if one is close enough to be meant: at most a third of its letters differ.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Nobody mistypes a key this long; the bound keeps the table below small.
    if word.len() > 128 {
        return None;
    }
    let fold = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let wanted = fold(word);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &fold(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(ca != *cb))
                .min(above + 1)
                .min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn close_words_are_found_and_far_ones_are_not() {
        let keys = ["source", "target", "topics", "replication-factor"];
        assert_eq!(nearest("topcis", keys), Some("topics"));
        assert_eq!(
            nearest("replication_factor", keys),
            Some("replication-factor")
        );
        assert_eq!(nearest("Source", keys), Some("source"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"x".repeat(1000), keys), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
