//! What a log made up for a test leaves to the log inside it.

/// The named calls of [`accrue::stream::log::Log`], each passed on to the field `inner`.
macro_rules! left_to_inner {
    (@create_topics) => {
        fn create_topics(
            &self,
            specs: &[accrue::stream::log::TopicSpec],
        ) -> Result<Vec<accrue::stream::log::TopicFound>, accrue::stream::log::LogError> {
            self.inner.create_topics(specs)
        }
    };
    (@partitions) => {
        fn partitions(
            &self,
            topic: &accrue::stream::record::Topic,
        ) -> Result<Option<u32>, accrue::stream::log::LogError> {
            self.inner.partitions(topic)
        }
    };
    (@reader) => {
        fn reader(
            &self,
            at: &accrue::stream::record::TopicPartition,
            from: accrue::stream::record::Offset,
        ) -> Result<Box<dyn accrue::stream::log::Reader>, accrue::stream::log::LogError> {
            self.inner.reader(at, from)
        }
    };
    (@end) => {
        fn end(
            &self,
            at: &accrue::stream::record::TopicPartition,
        ) -> Result<accrue::stream::record::Offset, accrue::stream::log::LogError> {
            self.inner.end(at)
        }
    };
    (@start) => {
        fn start(
            &self,
            at: &accrue::stream::record::TopicPartition,
        ) -> Result<accrue::stream::record::Offset, accrue::stream::log::LogError> {
            self.inner.start(at)
        }
    };
    (@committed) => {
        fn committed(
            &self,
            group: &str,
            of: &[accrue::stream::record::TopicPartition],
        ) -> Result<accrue::stream::log::Positions, accrue::stream::log::LogError> {
            self.inner.committed(group, of)
        }
    };
    (@members) => {
        fn members(&self, group: &str) -> Result<usize, accrue::stream::log::LogError> {
            self.inner.members(group)
        }
    };
    (@move_group) => {
        fn move_group(
            &self,
            group: &str,
            to: &accrue::stream::log::Positions,
        ) -> Result<(), accrue::stream::log::LogError> {
            self.inner.move_group(group, to)
        }
    };
    (@grow) => {
        fn grow(
            &self,
            topic: &accrue::stream::record::Topic,
            partitions: u32,
        ) -> Result<(), accrue::stream::log::LogError> {
            self.inner.grow(topic, partitions)
        }
    };
    (@offset_at) => {
        fn offset_at(
            &self,
            at: &accrue::stream::record::TopicPartition,
            time: accrue::stream::record::Timestamp,
        ) -> Result<accrue::stream::record::Offset, accrue::stream::log::LogError> {
            self.inner.offset_at(at, time)
        }
    };
    ($($call:ident)+) => {
        $(left_to_inner!(@$call);)+
    };
}
pub(crate) use left_to_inner;
