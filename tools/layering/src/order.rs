//! Whether the modules of a package stand in the order that the table gives them, and whether any of them form a circle.
//!
//! What a module's descendants use, it uses. A parent and its own descendants may use each other; apart from that, the modules
//! below one parent form no circle, at any depth.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::Arrow;
use crate::table::Package;

/// Pairs of modules whose arrows do not run down, and modules that the table and the sources do not share.
pub(crate) fn misplaced(package: &Package, top: &BTreeSet<&str>, arrows: &[Arrow]) -> Vec<String> {
    let path = &package.path;
    let level_of: BTreeMap<&str, usize> = package
        .levels
        .iter()
        .enumerate()
        .flat_map(|(level, names)| names.iter().map(move |name| (name.as_str(), level)))
        .collect();
    let unplaced = top.iter().filter(|name| !level_of.contains_key(*name));
    let mut found: Vec<_> =
        unplaced.map(|name| format!("{path}: module {name} stands on no level")).collect();
    let stale = level_of.keys().filter(|name| !top.contains(*name));
    found.extend(stale.map(|name| format!("{path}: a level names module {name}, which does not exist")));
    let mut upward: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for arrow in arrows {
        let (Some(from), Some(to)) = (arrow.from.first(), arrow.to.first()) else { continue };
        let (from_level, to_level) = (level_of.get(from.as_str()), level_of.get(to.as_str()));
        if from != to && from_level.is_some() && from_level <= to_level {
            upward.entry((from, to)).or_default().push(&arrow.place);
        }
    }
    for ((from, to), places) in upward {
        let first = places.first().copied().unwrap_or_default();
        let more = if places.len() > 1 { format!(" ({} places)", places.len()) } else { String::new() };
        found.push(format!("{first}: {from} uses {to}, which is not below it{more}"));
    }
    found
}

/// The lowest level that each module could have. Modules that are in a circle, or use one that is, are left out.
pub(crate) fn levels<'a>(top: &BTreeSet<&'a str>, arrows: &[Arrow]) -> Vec<Vec<&'a str>> {
    let uses = |module: &str, used: &str| {
        let ends = |arrow: &Arrow| {
            arrow.from.first().is_some_and(|from| from == module)
                && arrow.to.first().is_some_and(|to| to == used)
        };
        arrows.iter().any(ends)
    };
    let mut left = top.clone();
    let mut levels = Vec::new();
    loop {
        let is_free = |module: &&&str| !left.iter().any(|other| other != *module && uses(module, other));
        let level: Vec<&str> = left.iter().filter(is_free).copied().collect();
        if level.is_empty() {
            return levels;
        }
        left.retain(|module| !level.contains(module));
        levels.push(level);
    }
}

/// The shortest circle through each module that is in one, unless a circle before it shows that module already.
pub(crate) fn circles(package: &Package, arrows: &[Arrow]) -> Vec<String> {
    let mut by_parent: BTreeMap<&[String], Graph<'_>> = BTreeMap::new();
    for arrow in arrows {
        let shared = arrow.from.iter().zip(&arrow.to).take_while(|(from, to)| from == to).count();
        let (Some(from), Some(to)) = (arrow.from.get(shared), arrow.to.get(shared)) else { continue };
        let parent = arrow.from.get(..shared).unwrap_or_default();
        by_parent.entry(parent).or_default().entry(from).or_default().entry(to).or_insert(&arrow.place);
    }
    let mut found = Vec::new();
    for (parent, graph) in by_parent {
        let mut reported = BTreeSet::new();
        for start in graph.keys() {
            if reported.contains(start) {
                continue;
            }
            let Some(circle) = shortest_circle(&graph, start) else { continue };
            reported.extend(circle.iter().copied());
            found.push(format!("{}: {}", package.path, spell(parent, &graph, &circle)));
        }
    }
    found
}

/// From a module to those it uses, each with one place where it does.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>;

/// The modules of the shortest way from `start` back to it.
fn shortest_circle<'a>(graph: &Graph<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(module) = waiting.pop_front() {
        for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if *next == start {
                let mut circle = vec![module];
                while let Some(before) = circle.last().and_then(|last| reached_from.get(last)) {
                    circle.push(before);
                }
                circle.reverse();
                return Some(circle);
            }
            if !reached_from.contains_key(next) {
                reached_from.insert(next, module);
                waiting.push_back(next);
            }
        }
    }
    None
}

fn spell(parent: &[String], graph: &Graph<'_>, circle: &[&str]) -> String {
    let within = if parent.is_empty() { String::new() } else { format!(" in {}", parent.join("::")) };
    let mut text = format!("circle{within}: {} → {}", circle.join(" → "), circle.first().unwrap_or(&""));
    for (from, to) in circle.iter().zip(circle.iter().cycle().skip(1)) {
        let place = graph.get(from).and_then(|uses| uses.get(to)).copied().unwrap_or_default();
        text.push_str(&format!("\n    {place}: {from} uses {to}"));
    }
    text
}
