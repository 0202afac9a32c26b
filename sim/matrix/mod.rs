//! A scenario over two parameters: NAT × NAT, or any two keys, with several seeds a cell.
//!
//! | module | what it does |
//! |---|---|
//! | `axis` | which values rows and columns have |
//! | `cells` | a cell's runs, and whether theory agrees |
//! | [`oracle`] | what two NATs allow, worked out from RFC 4787 without a simulator |
//! | `fits` | which scenarios the oracle speaks of |
//! | `text` | the matrix in a terminal, as Markdown and as CSV |
//! | `html` | the heat map |

mod axis;
mod cells;
mod fits;
mod html;
pub mod oracle;
mod text;

pub use axis::{Axis, AxisError, AxisValue, nats};
pub use cells::{Agreement, Cell, Matrix};
pub use fits::{Fit, fit};
pub use html::html;
pub use text::{csv, markdown, terminal};
