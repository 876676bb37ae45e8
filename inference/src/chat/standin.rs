//! Stand-ins: private characters that keep user text from ever looking like a control token.
//!
//! The name of a control token that contains a character of a user must begin inside of user text, or end inside of it,
//! or enclose it. The first is impossible because every character that names begin with is replaced there, the second
//! because every character they end with is, the third because the first visible character of a user text always is.
//! White space stays, so templates can trim; what is left of a text after a template cut it up is still covered.

use std::collections::{BTreeMap, BTreeSet};

use super::{ChatError, ChatMessage};

/// Roles that conversations use everywhere. A template that prints a role as part of a control token's name means these.
const ROLES: [&str; 6] = ["system", "user", "assistant", "tool", "function", "developer"];

/// One stand-in for each character that has to be hidden.
pub(super) struct StandIns {
    hide: BTreeMap<char, char>,
    show: BTreeMap<char, char>,
    /// First and last characters of the names of control tokens.
    edges: BTreeSet<char>,
    /// Roles that stay as they are.
    roles: BTreeSet<String>,
}

impl StandIns {
    /// Chooses characters of the private planes that occur nowhere in the conversation or the template.
    pub(super) fn new<'n>(
        names: impl Iterator<Item = &'n str>,
        messages: &[ChatMessage],
        template: &str,
    ) -> Result<StandIns, ChatError> {
        let edges: BTreeSet<char> =
            names.flat_map(|name| name.chars().next().into_iter().chain(name.chars().next_back())).collect();
        let texts = || messages.iter().flat_map(|message| [message.content.as_str(), message.role.as_str()]);
        let firsts = texts().filter_map(|text| text.chars().find(|c| !c.is_whitespace()));
        let hidden: BTreeSet<char> = edges.iter().copied().chain(firsts).collect();
        let taken: BTreeSet<char> = texts()
            .chain([template])
            .flat_map(str::chars)
            .chain(edges.iter().copied())
            .filter(|c| is_private(*c))
            .collect();
        let mut free = ('\u{f0000}'..='\u{10fffd}').filter(|c| is_private(*c) && !taken.contains(c));
        let mut standins = StandIns { hide: BTreeMap::new(), show: BTreeMap::new(), edges, roles: BTreeSet::new() };
        for c in hidden {
            let Some(standin) = free.next() else {
                return Err(ChatError::Failed {
                    reason: "no private character is left to mark user text with".to_owned(),
                });
            };
            standins.hide.insert(c, standin);
            standins.show.insert(standin, c);
        }
        let is_quoted =
            |role: &str| [format!("'{role}'"), format!("\"{role}\"")].iter().any(|quoted| template.contains(quoted));
        let roles = messages.iter().map(|message| message.role.as_str());
        standins.roles = roles.filter(|role| ROLES.contains(role) || is_quoted(role)).map(str::to_owned).collect();
        Ok(standins)
    }

    /// A message whose content, and whose role unless the template knows it, can be nothing but text.
    pub(super) fn hide_message(&self, message: &ChatMessage) -> ChatMessage {
        let is_known = self.roles.contains(&message.role);
        let role = if is_known { message.role.clone() } else { self.hide(&message.role) };
        ChatMessage { role, content: self.hide(&message.content) }
    }

    /// The characters of users in place of their stand-ins.
    pub(super) fn reveal(&self, text: &str) -> String {
        text.chars().map(|c| self.show.get(&c).copied().unwrap_or(c)).collect()
    }

    /// An error that may quote a user.
    pub(super) fn reveal_error(&self, error: ChatError) -> ChatError {
        match error {
            ChatError::Refused { message } => ChatError::Refused { message: self.reveal(&message) },
            ChatError::Failed { reason } => ChatError::Failed { reason: self.reveal(&reason) },
            other => other,
        }
    }

    fn hide(&self, text: &str) -> String {
        let mut is_first = true;
        let hide = |c: char| {
            let is_hidden = self.edges.contains(&c) || is_first && !c.is_whitespace();
            is_first &= c.is_whitespace();
            if is_hidden { self.hide[&c] } else { c }
        };
        text.chars().map(hide).collect()
    }
}

/// Characters of the two private planes: valid, printable nowhere, used by nobody's text but possible.
fn is_private(c: char) -> bool {
    matches!(c, '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}')
}

#[cfg(test)]
mod tests {
    use super::{ChatMessage, StandIns};

    fn message(role: &str, content: &str) -> ChatMessage {
        ChatMessage { role: role.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn hidden_text_has_no_edges_and_comes_back() {
        let original = message("user", " <|eot_id|> \u{f0000}\u{f0001} > eot");
        let standins = StandIns::new(["<|eot_id|>", "</s>"].into_iter(), std::slice::from_ref(&original), "").unwrap();
        let hidden = standins.hide_message(&original);
        assert!(!hidden.content.contains(['<', '>']), "{:?}", hidden.content);
        assert!(hidden.content.starts_with(' '), "white space stays: {:?}", hidden.content);
        assert_eq!(standins.reveal(&hidden.content), original.content);
    }

    #[test]
    fn only_roles_that_the_template_knows_stay() {
        let messages = [message("user", "a"), message("ipython", "b"), message("eot_id", "c")];
        let standins = StandIns::new(["<|eot_id|>"].into_iter(), &messages, "{% if r == 'ipython' %}").unwrap();
        let roles: Vec<String> = messages.iter().map(|m| standins.hide_message(m).role).collect();
        assert_eq!(roles[..2], ["user".to_owned(), "ipython".to_owned()]);
        assert_ne!(roles[2], "eot_id");
        assert_eq!(standins.reveal(&roles[2]), "eot_id");
    }
}
