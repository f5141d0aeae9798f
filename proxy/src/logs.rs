//! Structured logs on standard error: an event with fields, as text or as JSON.

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How a line of the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, fields at its top level.
    Json,
}

/// A subscriber that writes events of `level` and above to `writer`. Libraries are heard from `warn` on at most: below that
/// they describe their own insides.
pub fn subscriber<W>(level: tracing::Level, format: Format, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let libraries = level.min(tracing::Level::WARN);
    let filter = EnvFilter::new(format!("{libraries},gorego={level}"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false)
        .with_ansi(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    Registry::default().with(filter).with(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: tracing::Level, format: Format) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(level, format, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(address = "127.0.0.1:1", "listening");
            tracing::debug!("details");
            tracing::warn!(target: "a_library", "odd");
            tracing::info!(target: "a_library", "insides");
        });
        let bytes = captured.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_has_one_object_a_line_with_fields_at_the_top() {
        let text = logged(tracing::Level::INFO, Format::Json);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["address"], "127.0.0.1:1");
        assert_eq!(line["message"], "listening");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn the_level_decides_what_is_written() {
        assert!(!logged(tracing::Level::INFO, Format::Text).contains("details"));
        assert!(logged(tracing::Level::DEBUG, Format::Text).contains("details"));
        assert!(logged(tracing::Level::INFO, Format::Text).contains("address=\"127.0.0.1:1\""));
    }

    #[test]
    fn libraries_are_heard_when_they_warn_and_never_below_the_level() {
        assert!(logged(tracing::Level::TRACE, Format::Text).contains("odd"));
        assert!(!logged(tracing::Level::TRACE, Format::Text).contains("insides"));
        assert_eq!(logged(tracing::Level::ERROR, Format::Text), "");
    }
}
