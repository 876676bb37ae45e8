//! Conversations to tokens, by the Jinja template that the model file carries.
//!
//! The template's control tokens become tokens; what users write never does, whatever it looks like and whatever the
//! template does to it. How: before rendering, the characters of every user text that could begin or end the name of a
//! control token (and its first character) are replaced by private stand-ins that occur nowhere else. Names of control
//! tokens that are found in the rendered text can then only be the template's own. The text between them gets its
//! characters back and is encoded as one run, so merges over the seam of template and user text stay natural.
//!
//! A template is code from the model file. It runs with a limit on steps and on output. (What it could still do is to
//! double a text until memory ends; a model file is chosen by the operator, who should not run a hostile one.)

mod clock;
mod controls;
mod standin;
mod template;

pub use clock::Clock;
use controls::{Controls, Piece};
use standin::StandIns;
use template::Template;

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{TEXT_BYTES_MAX, Tokenizer, TokenizerError};

/// The key of the template in a model file.
pub const TEMPLATE_KEY: &str = "tokenizer.chat_template";
/// Messages of one conversation. More than fit any context with a token each would be pointless long before.
pub const MESSAGES_MAX: usize = 4_096;
/// Bytes of a role name.
pub const ROLE_BYTES_MAX: usize = 64;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Why a conversation did not become tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template's key has the wrong type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The template does not parse.
    #[error(
        "the model's chat template does not parse: {reason}; give the model another template, or use plain completions"
    )]
    Syntax {
        /// What the parser said.
        reason: String,
    },
    /// A conversation has something to answer to.
    #[error("the conversation is empty: give at least one message")]
    Empty,
    /// Conversations are bounded.
    #[error("the conversation has {count} messages; at most {max} are accepted")]
    Messages {
        /// Their number.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Conversations are bounded.
    #[error("the conversation has {bytes} bytes; at most {max} are accepted")]
    TooLong {
        /// Their bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A role is a short name.
    #[error("message {index}: the role has {bytes} bytes; at most {max} are accepted")]
    Role {
        /// Which message.
        index: usize,
        /// Bytes of its role.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The template itself refuses the conversation (unknown role, wrong order).
    #[error("the model's chat template refuses the conversation: {message}")]
    Refused {
        /// The template's words.
        message: String,
    },
    /// The template fails, runs too long or prints too much.
    #[error("the model's chat template failed: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// The rendered text cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The chat template of one model, parsed.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    template: Template,
}

impl ChatTemplate {
    /// Parses the template of a model file; none if the file has none.
    ///
    /// # Errors
    /// The template does not parse.
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<ChatTemplate>, ChatError> {
        match gguf.metadata().opt_str(TEMPLATE_KEY)? {
            Some(source) => ChatTemplate::new(source, Clock::System).map(Some),
            None => Ok(None),
        }
    }

    /// Parses a template. The clock is what its `strftime_now` reads.
    ///
    /// # Errors
    /// The template does not parse.
    pub fn new(source: &str, clock: Clock) -> Result<ChatTemplate, ChatError> {
        Ok(ChatTemplate { template: Template::parse(source, clock)? })
    }

    /// The tokens of a conversation, up to where the assistant speaks next.
    ///
    /// # Errors
    /// The conversation breaks a limit, or the template refuses it or fails.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[ChatMessage]) -> Result<Vec<u32>, ChatError> {
        check(messages)?;
        let controls = Controls::new(tokenizer);
        let standins = StandIns::new(controls.names(), messages, self.template.source())?;
        let hidden: Vec<ChatMessage> = messages.iter().map(|message| standins.hide_message(message)).collect();
        let settings = tokenizer.settings();
        let (bos, eos) = (controls.name(settings.bos), controls.name(settings.eos));
        let rendered = self.template.render(&hidden, bos, eos).map_err(|error| standins.reveal_error(error))?;
        let mut tokens = Vec::new();
        for piece in controls.split(&rendered) {
            match piece {
                Piece::Control(id) => tokens.push(id),
                Piece::Text(text) => tokens.extend(tokenizer.encode(&standins.reveal(text))?),
            }
        }
        Ok(tokens)
    }
}

fn check(messages: &[ChatMessage]) -> Result<(), ChatError> {
    if messages.is_empty() {
        return Err(ChatError::Empty);
    }
    if messages.len() > MESSAGES_MAX {
        return Err(ChatError::Messages { count: messages.len(), max: MESSAGES_MAX });
    }
    let bytes = messages.iter().map(|message| message.content.len()).sum();
    if bytes > TEXT_BYTES_MAX {
        return Err(ChatError::TooLong { bytes, max: TEXT_BYTES_MAX });
    }
    match messages.iter().position(|message| message.role.len() > ROLE_BYTES_MAX) {
        Some(index) => Err(ChatError::Role { index, bytes: messages[index].role.len(), max: ROLE_BYTES_MAX }),
        None => Ok(()),
    }
}
