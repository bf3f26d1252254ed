//! `deploy/ocpp-gateway.toml`: every key with its default and what it means. To be read as it is, or cut down to what differs.

use crate::keys::{Key, Section};

const HEAD: &str = "\
# ocpp-gateway: every key with its default. None of them needs to be set; docs/configuration.md is the same as a page.
# Order of sources: built-in default, this file, environment (OCPP_GATEWAY__SECTION__KEY), --set section.key=value.
# Durations: 250ms, 10s, 5m, 1h 30m. Sizes: 4KiB, 1MiB, 10GiB. Unknown keys are errors.
";
/// Characters of a line of comment, at most.
const WIDTH: usize = 116;

/// The whole file.
pub(crate) fn render(sections: &[Section]) -> String {
    let mut file = HEAD.to_owned();
    for section in sections {
        file.push('\n');
        comment(&mut file, &section.text);
        file.push_str(&format!("[{}]\n", section.example));
        let (tables, keys): (Vec<&Key>, Vec<&Key>) = section.keys.iter().partition(|key| key.default == "{}");
        let (tuning, operator): (Vec<&Key>, Vec<&Key>) = keys.into_iter().partition(|key| key.is_tuning);
        for key in &operator {
            entry(&mut file, key);
        }
        if !tuning.is_empty() {
            let gap = if operator.is_empty() { "" } else { "\n" };
            file.push_str(&format!("{gap}# The keys below are for tuning only.\n"));
        }
        for key in tuning {
            entry(&mut file, key);
        }
        for table in tables {
            file.push('\n');
            comment(&mut file, &table.text);
            file.push_str(&format!("[{}.{}]\n", section.example, table.name));
            for line in table.example.iter().flat_map(|example| example.lines().skip(1)) {
                file.push_str(&format!("# {line}\n"));
            }
        }
    }
    file
}

fn entry(file: &mut String, key: &Key) {
    comment(file, &key.text);
    file.push_str(&format!("{} = {}\n", key.name, key.default));
}

/// Writes a text as a comment, without the marks of Markdown.
fn comment(file: &mut String, markdown: &str) {
    let mut line = String::from("#");
    for word in plain(markdown).split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            file.push_str(&line);
            file.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    file.push_str(&line);
    file.push('\n');
}

/// Code without its backticks, links as their texts.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once("](") {
        // What precedes the text of a link is its opening bracket.
        let (before, label) = before.rsplit_once('[').unwrap_or((before, ""));
        text.push_str(before);
        text.push_str(label);
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    (text + rest).replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_has_no_markdown_and_no_long_lines() {
        assert_eq!(plain("See `a.b` in [ADR 1](adr/1.md#x), `[t]`."), "See a.b in ADR 1, [t].");
        let mut file = String::new();
        comment(&mut file, &"word ".repeat(60));
        assert!(file.lines().all(|line| line.starts_with("# ") && line.len() <= WIDTH));
    }
}
