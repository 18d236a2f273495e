use super::*;
use crate::codec::registry::Registry;
use crate::codec::schemas::Schemas;
pub struct Run<'a> {
    pub topology: &'a Topology,
    pub log: &'a dyn Log,
    pub registry: Arc<dyn Registry>,
    pub schemas: &'a Arc<Schemas>,
    pub shape: &'a Shape,
    pub dir: &'a Path,
    pub loaded: usize,
    pub processed: bool,
    pub seconds: f64,
}
pub fn print(run: &Run<'_>) -> Result<(), anyhow::Error> {
    println!("{:.1} s", run.seconds);
    Ok(())
}
