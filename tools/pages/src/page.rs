//! `docs/configuration.md`: the keys an operator sets, and apart from them those that only tuning needs.

use crate::keys::{Key, Section};

const TEMPLATE: &str = include_str!("../configuration.md");

/// The whole page.
pub(crate) fn render(sections: &[Section]) -> String {
    TEMPLATE
        .replace("{operator}\n", &group(sections, |key| !key.is_tuning))
        .replace("{tuning}\n", &group(sections, |key| key.is_tuning))
}

fn group(sections: &[Section], belongs: impl Fn(&Key) -> bool) -> String {
    let mut page = String::new();
    for section in sections {
        let keys: Vec<&Key> = section.keys.iter().filter(|key| belongs(key)).collect();
        if keys.is_empty() {
            continue;
        }
        page.push_str(&format!("### `[{}]`\n\n{}\n\n", section.path, section.text));
        page.push_str("| key | default | meaning |\n|---|---|---|\n");
        for key in &keys {
            let Key { name, default, text, .. } = key;
            page.push_str(&format!("| `{}.{name}` | `{default}` | {text} |\n", section.path));
        }
        page.push('\n');
        for example in keys.iter().filter_map(|key| key.example.as_ref()) {
            page.push_str(&format!("```toml\n{example}\n```\n\n"));
        }
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}
