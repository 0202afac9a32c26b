//! A Grape in a container.
//!
//! A container's name is [`container_name`] of the Grape's; it uses the host's network, so that a [`GrapeSpec`] means
//! the same as for a process.

use super::{GrapeSpec, GrapesError};

/// What the container of the Grape `name` is called.
pub fn container_name(name: &str) -> String {
    format!("grenache-{name}")
}

/// A container that runs a Grape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id, as the engine gave it: what is kept to find it again.
    pub id: String,
}

/// Whether there is an engine that can be used.
///
/// # Errors
/// Where there is none, with a sentence that says what to install or to start.
pub async fn check() -> Result<(), GrapesError> {
    Err(GrapesError::NoDocker("Grapes in containers are not part of this build: use `--on process`".to_owned()))
}

impl Container {
    /// Starts a Grape in a container, which goes on when this process ends. Does not wait until the Grape is ready.
    ///
    /// # Errors
    /// Where the engine cannot, such as for an image that is not there.
    pub async fn up(_spec: &GrapeSpec) -> Result<Self, GrapesError> {
        check().await?;
        unreachable!("there is no engine")
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Where the engine cannot be asked.
    pub async fn is_running(&self) -> Result<bool, GrapesError> {
        check().await?;
        Ok(false)
    }

    /// What the Grape has written to standard error so far.
    ///
    /// # Errors
    /// Where the engine cannot be asked.
    pub async fn log(&self) -> Result<String, GrapesError> {
        check().await?;
        Ok(String::new())
    }

    /// Ends it and removes it; nothing where it is gone already.
    ///
    /// # Errors
    /// Where the engine cannot.
    pub async fn down(&self) -> Result<(), GrapesError> {
        check().await
    }
}
