//! Settings as rows: [`settings!`](crate::settings!) declares a table of settings, each once, with its type, default, accepted
//! values and documentation. [`choices!`](crate::choices!) declares a type with a word for each of its values.
//!
//! The declaration reads as a struct and becomes one, together with its [`Default`] and its [`Row`]s. The checks of a
//! configuration, its messages and the example file are made from the rows.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, which ends in its unit: `_s`, `_ms`, `_bytes`, `_percent`; `_max` may follow.
    pub name: &'static str,
    /// Its documentation, by line; each line begins with a space.
    pub doc: &'static [&'static str],
    /// The values that it takes.
    pub accepts: Accepts,
    /// An example value in TOML, for a setting without a default or with one that depends on the machine.
    pub example: Option<&'static str>,
    /// Whether it is required in its table.
    pub is_required: bool,
}

/// The values that a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// A whole number between two bounds, both included.
    Number(Bound, Bound),
    /// `true` or `false`.
    Boolean,
    /// A string: its form in words, and the check of a string.
    Text(&'static str, fn(&str) -> bool),
    /// As [`Accepts::Text`]; no message repeats the value.
    Secret(&'static str, fn(&str) -> bool),
    /// One of these TOML values; words after a space explain the value before it.
    OneOf(&'static [&'static str]),
    /// A list of such values.
    List(&'static Accepts),
    /// A table of settings.
    Table(&'static [Row]),
    /// The rows of another table, as part of this one.
    Flattened(&'static [Row]),
    /// A table whose rows apply to one value of another setting, and are checked with it.
    Parameters(&'static [Row]),
}

/// A bound of a number.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// This number.
    Is(u64),
    /// The value of another setting in the same table.
    Of(&'static str),
}

impl Accepts {
    /// The largest time that can be set, in seconds: a hundred years.
    pub const SECONDS_MAX: u64 = 100 * 366 * 24 * 3600;
    /// The largest sum of sizes that can be set, in bytes: a semaphore can count this many KiB.
    pub const BYTES_MAX: u64 = 1 << 40;

    /// A number of things, at least one.
    pub const COUNT: Self = Self::from_to(1, 1 << 24);
    /// A time in seconds that is not 0.
    pub const SECONDS: Self = Self::from_to(1, Self::SECONDS_MAX);
    /// The size of one thing, in bytes.
    pub const BYTES: Self = Self::from_to(1024, 1 << 30);

    /// A whole number between two constants, both included.
    pub const fn from_to(min: u64, max: u64) -> Self {
        Self::Number(Bound::Is(min), Bound::Is(max))
    }
}

/// Declares a table of settings: a struct, its `Default`, and its rows as `ROWS`.
///
/// A setting is `name: Type = default => accepts;`, with its documentation above. `, e.g. "TOML"` gives a value for the
/// example file. A setting with neither a default nor a `serde` attribute is required, and a table with a setting that has no
/// default has no `Default`.
///
/// ```
/// use actors::settings::Accepts;
/// actors::settings! {
///     /// How long to wait.
///     #[derive(Debug)]
///     pub struct Patience {
///         /// For one answer, in seconds.
///         pub answer_timeout_s: u64 = 10 => Accepts::SECONDS;
///     }
/// }
/// assert_eq!(Patience::default().answer_timeout_s, 10);
/// assert_eq!(Patience::ROWS[0].doc, [" For one answer, in seconds."]);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $table:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                pub $name:ident: $type:ty $(= $default:expr)? => $accepts:expr $(, e.g. $example:literal)?;
            )+
        }
    ) => {
        $(#[$meta])*
        pub struct $table {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)+)])?
                pub $name: $type,
            )+
        }

        impl $table {
            /// The settings of this table.
            pub const ROWS: &'static [$crate::settings::Row] = &[$($crate::settings::Row {
                name: stringify!($name),
                doc: &[$($doc),+],
                accepts: $accepts,
                example: $crate::settings!(@example $($example)?),
                is_required: <[&str]>::is_empty(
                    &[$(stringify!($default),)? $(stringify!($($serde)+),)?]
                ),
            }),+];
        }

        $crate::settings!(@default $table { $($name $(= $default)?;)+ });
    };
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
    (@default $table:ident { $($name:ident = $default:expr;)+ }) => {
        impl Default for $table {
            fn default() -> Self {
                Self { $($name: $default),+ }
            }
        }
    };
    (@default $table:ident { $($rest:tt)+ }) => {};
}
