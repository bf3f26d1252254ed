//! What HTML and SVG have in common: text that must not be read as markup.

/// Escapes text for content and for attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
