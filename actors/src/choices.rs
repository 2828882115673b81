//! Settings that take one of several values: [`choices!`](crate::choices!) declares the type and the words of its values
//! together.

/// Declares the values of a setting that takes one of several: an enum, its form in TOML and JSON, and the values as
/// `ACCEPTS`. Each variant has a word, or, in an enum `: u8`, a number with a name for messages.
///
/// ```
/// actors::choices! {
///     /// The size of a cup.
///     #[derive(Clone, Copy, Debug)]
///     pub enum Cup {
///         /// A quarter of a litre.
///         Small = "small",
///         /// Half a litre.
///         Large = "large",
///     }
/// }
/// let actors::settings::Accepts::OneOf(words) = Cup::ACCEPTS else { panic!() };
/// assert_eq!(words, [r#""small""#, r#""large""#]);
/// assert_eq!(Cup::ALL.len(), 2);
/// ```
#[macro_export]
macro_rules! choices {
    (
        $(#[$meta:meta])*
        pub enum $choice:ident {
            $($(#[$attribute:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        pub enum $choice {
            $($(#[$attribute])* #[serde(rename = $word)] $variant,)+
        }

        $crate::choices!(@values $choice { $($variant = concat!("\"", $word, "\""),)+ });
    };
    (
        $(#[$meta:meta])*
        pub enum $choice:ident: u8 {
            $($(#[$attribute:meta])* $variant:ident = $number:literal $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum $choice {
            $($(#[$attribute])* $variant = $number,)+
        }

        impl TryFrom<u8> for $choice {
            type Error = String;

            fn try_from(number: u8) -> Result<Self, Self::Error> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    _ => Err(["must be ", &[$(concat!($number, " (", $name, ")")),+].join(" or ")].concat()),
                }
            }
        }

        impl From<$choice> for u8 {
            fn from(choice: $choice) -> Self {
                match choice {
                    $($choice::$variant => $number,)+
                }
            }
        }

        $crate::choices!(@values $choice { $($variant = concat!($number, " (", $name, ")"),)+ });
    };
    (@values $choice:ident { $($variant:ident = $word:expr,)+ }) => {
        impl $choice {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The values as a setting takes them.
            pub const ACCEPTS: $crate::settings::Accepts = $crate::settings::Accepts::OneOf(&[$($word),+]);
        }
    };
}
