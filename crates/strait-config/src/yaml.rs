//! YAML as far as Kubernetes resources need it: a tree of texts, lists and maps with their lines.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::Problem;

/// No resource is nested deeper.
const MAX_DEPTH: usize = 32;

/// A value and the line it begins on.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What stands there. Numbers and booleans are texts as they are written.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, no key twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value under a key of a map; none where it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(name, _)| name == key)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// The entries of a map; none of anything else.
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list; none of anything else.
    pub(crate) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::List(elements) => elements,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// All documents of a file.
///
/// # Errors
/// It is no YAML, nested too deep, or has aliases: what they stand for could be any size.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    let mut reading = Reading {
        parser: Parser::new_from_str(text),
    };
    let mut documents = Vec::new();
    loop {
        let (event, span) = reading.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => documents.push(reading.node(event, span, 0)?),
        }
    }
}

struct Reading<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
}

impl<'t> Reading<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let why = format!("this is not YAML: {}", error.info());
                let line = Some(error.marker().line());
                Err(Problem::at(line, "", why, "Mend this line"))
            }
            None => Err(Problem::whole("it ends too early", "Save the whole file")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        let line = span.start.line();
        let at = |why: &str, instead: &str| Err(Problem::at(Some(line), "", why, instead));
        if depth > MAX_DEPTH {
            return at("it is nested too deep", "Name a Kubernetes resource");
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..)
                if matches!(text.as_ref(), "" | "~" | "null") =>
            {
                Value::Null
            }
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut elements = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(elements),
                        (event, span) => elements.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries: Vec<(String, Node)> = Vec::new();
                let mut keys = HashSet::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(entries),
                        (Event::Scalar(key, ..), _) => key.into_owned(),
                        _ => return at("a key is not a text", "Write names as keys"),
                    };
                    let (event, span) = self.next()?;
                    let node = self.node(event, span, depth + 1)?;
                    if !keys.insert(key.clone()) {
                        let why = "it is given twice";
                        return Err(Problem::at(Some(node.line), key, why, "Keep one of them"));
                    }
                    entries.push((key, node));
                }
            }
            Event::Alias(_) => {
                return at(
                    "aliases (*name) are not read",
                    "Write what it stands for in its place",
                );
            }
            _ => return at("this is not YAML", "Mend this line"),
        };
        Ok(Node { line, value })
    }
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn what_resources_are_made_of_is_read_with_its_lines() {
        let text = "# c\na: 'x'\nb:\n  - c: 1\n    d: true\n  - e\nf: ~\ng: {h: \"~\"}\n---\nz: |\n  one\n  two\n";
        let all = documents(text).unwrap();
        let [first, second] = all.as_slice() else {
            panic!("{all:?}")
        };
        assert_eq!(first.get("a").unwrap().text(), Some("x"));
        let list = first.get("b").unwrap().elements();
        assert_eq!(
            (list[0].line, list[0].get("d").unwrap().text()),
            (4, Some("true"))
        );
        assert_eq!(list[1].text(), Some("e"));
        assert!(first.get("f").is_none() && first.get("none").is_none());
        assert_eq!(first.get("g").unwrap().get("h").unwrap().text(), Some("~"));
        assert_eq!(second.get("z").unwrap().text(), Some("one\ntwo\n"));
    }

    #[test]
    fn hostile_texts_are_answered() {
        let (deep, deeper) = ("[".repeat(40), "[".repeat(100_000));
        let laughs = "a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]\n";
        for (text, why) in [
            (deep.as_str(), "it is nested too deep"),
            (deeper.as_str(), "this is not YAML: "),
            (laughs, "aliases (*name) are not read"),
            ("a: 1\na: 2\n", "it is given twice"),
            ("? [a]\n: b\n", "a key is not a text"),
            ("a: [1\n", "this is not YAML: "),
            ("a: \"x", "this is not YAML: "),
        ] {
            let problem = documents(text).unwrap_err();
            assert!(problem.why.starts_with(why), "{problem:?}");
        }
        assert!(documents("").unwrap().is_empty());
    }
}
