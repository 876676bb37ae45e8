//! The Jinja template itself, in a sandbox: the only module that knows minijinja.

use std::io::{self, Write};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::{ChatError, ChatMessage, Clock};
use crate::tokenizer::TEXT_BYTES_MAX;

/// Steps of one rendering. A message takes about fifty; a long conversation stays far below.
const FUEL: u64 = 2_000_000;
/// Bytes of one rendering: all of a conversation, each character as long as a stand-in, and the template's own text.
const OUTPUT_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX + (1 << 20);
/// Depth of macros and includes. Templates of models use none or one; the stack must hold it in any thread.
const RECURSION_MAX: usize = 64;
const NAME: &str = "chat";

/// A parsed template. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Template {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
}

impl Template {
    pub(super) fn parse(source: &str, clock: Clock) -> Result<Template, ChatError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("only white space differs from the default"));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| clock.format(&format));
        let parsed = environment.add_template_owned(NAME, source.to_owned());
        parsed.map_err(|error| ChatError::Syntax { reason: error.to_string() })?;
        Ok(Template { environment: Arc::new(environment), source: source.into() })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation with the header of the assistant's answer.
    pub(super) fn render(
        &self,
        messages: &[ChatMessage],
        bos: Option<&str>,
        eos: Option<&str>,
    ) -> Result<String, ChatError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())]))
            .collect();
        let values = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => bos.unwrap_or_default(),
            eos_token => eos.unwrap_or_default(),
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let template = self.environment.get_template(NAME).expect("added when it was parsed");
        let mut output = Bounded(Vec::new());
        template.render_captured_to(values, &mut output).map_err(|error| chat_error(&error))?;
        Ok(String::from_utf8(output.0).expect("a template writes text"))
    }
}

/// The words of a template that refuses a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message)))
}

fn chat_error(error: &Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(Refusal(message)) = link.downcast_ref() {
            return ChatError::Refused { message: message.clone() };
        }
        cause = link.source();
    }
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
        ErrorKind::WriteFailure => format!("it prints more than {OUTPUT_BYTES_MAX} bytes"),
        _ => error.to_string(),
    };
    ChatError::Failed { reason }
}

/// A buffer that fails instead of growing past its limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("output limit"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
