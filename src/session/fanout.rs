//! Live subscribers of one session.
//! Enters: bins as they are answered, and notices, from the thread that answers. Leaves: to each subscriber, from a task
//! of its own, the messages of its selection, thinned to its rate.
//! Owns: who listens, their bounded mailboxes, what is being thinned.
//! Must hold: the session waits for none of them and does nothing without one; it hands over shared values, and a message
//! is built once for all who chose alike; a full mailbox loses the newest message, and the next one says how many; so it
//! is with news that found no room, for those who listened when they were published.
//! Must not know: SSE, gRPC, the session's lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::mailbox::Mailbox;
use super::part::Part;
use super::thinning::Thinning;
use crate::domain::output::EventKind;
use crate::wire::told::{Shared, Told};
use crate::wire::v1;

/// Messages that wait for the task, in mailboxes: so long may it be held up before those who read lose anything.
const MAILBOXES_OF_NEWS: usize = 4;

/// What subscribers may be told of.
pub(super) enum News {
    /// Bins, with their age (µs); `head` says of which frame, and how long it took.
    Bins { head: v1::Output, parts: Vec<(Part, Option<f64>)> },
    /// Something happened.
    Notice(v1::Notice),
    /// So many messages found no room here.
    Missed(u64),
}

impl News {
    /// Messages that it is for one who is not thinned and chose what all of it has.
    fn messages(&self) -> usize {
        match self {
            News::Bins { parts, .. } => parts.len(),
            News::Notice(_) => 1,
            News::Missed(_) => 0,
        }
    }
}

/// The subscribers of a session.
pub(super) struct Fanout {
    /// Messages that wait for one subscriber. When full: the newest is lost and counted.
    limit: usize,
    /// How many listen, for the step path to see without a lock.
    listeners: AtomicUsize,
    /// By output: how many chose it.
    chosen: Box<[AtomicUsize]>,
    inbox: Mutex<Inbox>,
    stirred: Notify,
    circle: Mutex<Circle>,
}

#[derive(Default)]
struct Inbox {
    /// With the number of the first message of each, by which nobody is told what was before it joined.
    news: VecDeque<(u64, News)>,
    /// Messages that `news` hold.
    waiting: usize,
    /// Messages that ever came, also such as found no room.
    published: u64,
    end: Option<Told>,
}

impl Inbox {
    /// Lays news down, or that they found no room among so many messages.
    fn put(&mut self, news: News, room: usize) {
        let (number, messages) = (self.published, news.messages());
        self.published += messages as u64;
        if self.waiting < room {
            self.waiting += messages;
            self.news.push_back((number, news));
        } else if let Some((_, News::Missed(missed))) = self.news.back_mut() {
            *missed += messages as u64;
        } else {
            self.news.push_back((number, News::Missed(messages as u64)));
        }
    }

    /// Takes news of at most so many messages; those of more are divided.
    fn take(&mut self, mut room: usize) -> Vec<(u64, News)> {
        let mut taken = Vec::new();
        while room > 0
            && let Some((number, mut news)) = self.news.pop_front()
        {
            if let News::Bins { head, parts } = &mut news
                && parts.len() > room
            {
                let rest = News::Bins { head: head.clone(), parts: parts.split_off(room) };
                self.news.push_front((number + room as u64, rest));
            }
            self.waiting -= news.messages();
            room -= news.messages();
            taken.push((number, news));
        }
        taken
    }

    fn clear(&mut self) {
        self.news.clear();
        self.waiting = 0;
    }
}

/// Those who listen. Its lock is never waited for by the step path.
#[derive(Default)]
struct Circle {
    groups: Vec<Group>,
    joined: u64,
    /// Whether a task hands out.
    is_served: bool,
    has_ended: bool,
}

/// Subscribers who chose alike.
struct Group {
    /// By output number.
    chosen: Vec<bool>,
    /// Least time between messages; `None`: every message.
    period: Option<Duration>,
    /// When the next thinned message may go.
    due: Instant,
    thinning: Thinning,
    members: Vec<Member>,
    /// Something was put that nobody was woken for.
    is_told: bool,
}

struct Member {
    number: u64,
    /// The number of the first message after it joined.
    since: u64,
    mailbox: Arc<Mailbox>,
}

impl Member {
    /// Whether the message of this number came after it joined; what has no number is for all.
    fn is_told(&self, number: Option<u64>) -> bool {
        number.is_none_or(|number| self.since <= number)
    }
}

/// A subscriber's place.
pub(super) struct Joined {
    /// Its number, by which it leaves.
    pub(super) number: u64,
    /// Its messages.
    pub(super) mailbox: Arc<Mailbox>,
    /// Nobody hands out yet: whoever joined sees to it (`hand_out`).
    pub(super) is_first: bool,
}

/// What was handed out.
pub(super) struct Round {
    /// Those who were told something and are still to be woken: the caller does it, a few at a time.
    pub(super) told: Vec<Arc<Mailbox>>,
    /// Messages that found no room.
    pub(super) lost: u64,
    pub(super) next: Next,
}

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once, but let others go first.
    Now,
    /// When stirred, or when something thinned is due.
    Round(Option<Instant>),
    /// Nobody listens any more, or the end was told.
    Over,
}

impl Fanout {
    /// Of a session with so many outputs; nobody listens.
    pub(super) fn new(outputs: usize, limit: usize) -> Self {
        Self {
            limit,
            listeners: AtomicUsize::new(0),
            chosen: (0..outputs).map(|_| AtomicUsize::new(0)).collect(),
            inbox: Mutex::default(),
            stirred: Notify::new(),
            circle: Mutex::default(),
        }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Whether a subscriber wants this output.
    pub(super) fn is_chosen(&self, output: u32) -> bool {
        self.chosen[output as usize].load(Ordering::Relaxed) > 0
    }

    /// Lays news down for whoever listens. Never waits for them.
    pub(super) fn publish(&self, news: News) {
        self.inbox.lock().put(news, self.limit * MAILBOXES_OF_NEWS);
        self.stirred.notify_one();
    }

    /// Tells all, after what was published, that nothing more will come.
    pub(super) fn end(&self, why: Told) {
        self.inbox.lock().end.get_or_insert(why);
        self.stirred.notify_one();
    }

    /// Adds a subscriber of these outputs, by number; `None`: the session's end was told already.
    pub(super) fn join(&self, chosen: Vec<bool>, period: Option<Duration>) -> Option<Joined> {
        let mailbox = Arc::new(Mailbox::new(self.limit));
        let mut circle = self.circle.lock();
        if circle.has_ended {
            return None;
        }
        circle.joined += 1;
        let number = circle.joined;
        for (count, chosen) in self.chosen.iter().zip(&chosen) {
            count.fetch_add(usize::from(*chosen), Ordering::Relaxed);
        }
        let since = self.inbox.lock().published;
        let member = Member { number, since, mailbox: Arc::clone(&mailbox) };
        match circle.groups.iter_mut().find(|group| group.chosen == chosen && group.period == period) {
            Some(group) => group.members.push(member),
            None => circle.groups.push(Group {
                chosen,
                period,
                due: Instant::now(),
                thinning: Thinning::default(),
                members: vec![member],
                is_told: false,
            }),
        }
        let is_first = !std::mem::replace(&mut circle.is_served, true);
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Some(Joined { number, mailbox, is_first })
    }

    /// Takes a subscriber out.
    pub(super) fn leave(&self, number: u64) {
        let mut circle = self.circle.lock();
        let found = circle.groups.iter_mut().find_map(|group| {
            Some((group.members.iter().position(|member| member.number == number)?, group))
        });
        let Some((at, group)) = found else { return };
        group.members.swap_remove(at);
        for (count, chosen) in self.chosen.iter().zip(&group.chosen) {
            count.fetch_sub(usize::from(*chosen), Ordering::Relaxed);
        }
        circle.groups.retain(|group| !group.members.is_empty());
        self.listeners.fetch_sub(1, Ordering::Relaxed);
        drop(circle);
        self.stirred.notify_one();
    }

    /// Waits until there may be something to hand out. Cancel-safe: a call that was missed stays.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Hands out some of what was published, and what is due of what is being thinned. `finish` fills in what is true of
    /// every message at this moment.
    pub(super) fn hand_out(&self, now: Instant, finish: impl Fn(&mut v1::Output)) -> Round {
        // Fewer messages than a mailbox holds, so that whoever reads can empty it before the next round.
        let few = self.limit.div_ceil(MAILBOXES_OF_NEWS);
        let (news, end, has_more) = {
            let mut inbox = self.inbox.lock();
            let news = inbox.take(few);
            let has_more = !inbox.news.is_empty();
            (news, inbox.end.clone().filter(|_| !has_more), has_more)
        };
        let mut circle = self.circle.lock();
        let mut lost = 0;
        for group in &mut circle.groups {
            for (number, news) in &news {
                lost += group.take(*number, news, now, &finish);
            }
            lost += group.give_due(now, end.is_some(), &finish);
            if let Some(end) = &end {
                group.members.iter().for_each(|member| member.mailbox.end(end.clone()));
                group.is_told = true;
            }
        }
        circle.has_ended |= end.is_some();
        circle.is_served = !circle.groups.is_empty();
        if circle.groups.is_empty() {
            self.inbox.lock().clear();
        }
        let next = if end.is_some() || circle.groups.is_empty() {
            Next::Over
        } else if has_more {
            Next::Now
        } else {
            Next::Round(circle.groups.iter().filter_map(Group::is_due_at).min())
        };
        let told = circle.groups.iter_mut();
        let told = told.filter_map(|group| std::mem::take(&mut group.is_told).then_some(group));
        let told = told.flat_map(|group| group.members.iter().map(|member| Arc::clone(&member.mailbox)));
        Round { told: told.collect(), lost, next }
    }
}

impl Group {
    /// Messages lost.
    fn take(&mut self, number: u64, news: &News, now: Instant, finish: &impl Fn(&mut v1::Output)) -> u64 {
        let is_told = self.members.iter().any(|member| member.is_told(Some(number)));
        match news {
            News::Missed(messages) => self.miss(number, *messages),
            _ if !is_told => 0,
            News::Notice(notice) => {
                // What is being thinned was before the end.
                let is_last = notice.kind == EventKind::Closed.word();
                self.give_due(now, is_last, finish)
                    + self.give(Some(number), Told::Notice(Shared::new(notice.clone())))
            }
            News::Bins { head, parts } => {
                // A part that was opened before anybody chose this has not got it.
                let chosen = || (0..).zip(&self.chosen).filter(|(_, chosen)| **chosen);
                let has_all =
                    |part: &Part| part.n() == 0 || chosen().all(|(at, _)| part.values_of(at).is_some());
                let parts: Vec<_> = parts.iter().filter(|(part, _)| has_all(part)).collect();
                parts.iter().map(|(part, age_us)| self.bins(number, head, part, *age_us, now, finish)).sum()
            }
        }
    }

    /// Messages from this number on are lost to every member that joined before; a thinned message that is being made
    /// lacks them for all who get it.
    fn miss(&mut self, number: u64, messages: u64) -> u64 {
        if self.thinning.has_bins() {
            self.thinning.miss(messages);
            return messages * self.members.len() as u64;
        }
        let until = number + messages;
        let missed = self.members.iter().map(|member| {
            let own = until.saturating_sub(member.since).min(messages);
            member.mailbox.miss(own);
            own
        });
        missed.sum()
    }

    fn bins(
        &mut self,
        number: u64,
        head: &v1::Output,
        part: &Part,
        age_us: Option<f64>,
        now: Instant,
        finish: &impl Fn(&mut v1::Output),
    ) -> u64 {
        if self.period.is_some() {
            self.thinning.add(part, &self.chosen, head.lag_us, age_us);
            return self.give_due(now, false, finish);
        }
        let mut output = v1::Output {
            signal: head.signal.clone(),
            seq: head.seq,
            lag_us: head.lag_us,
            age_us,
            echo: head.echo.clone(),
            ..part.clone().message(&self.chosen)
        };
        finish(&mut output);
        self.give(Some(number), Told::Output { output: Shared::new(output), dropped: 0 })
    }

    /// When the thinned message that is being made may go, if there is one.
    fn is_due_at(&self) -> Option<Instant> {
        (self.period.is_some() && self.thinning.has_bins()).then_some(self.due)
    }

    fn give_due(&mut self, now: Instant, at_once: bool, finish: &impl Fn(&mut v1::Output)) -> u64 {
        let (Some(period), true) = (self.period, at_once || now >= self.due) else { return 0 };
        let Some(mut output) = self.thinning.give() else { return 0 };
        self.due = now + period;
        finish(&mut output);
        let dropped = std::mem::take(&mut output.dropped);
        // Whoever joined within the interval gets all of it.
        self.give(None, Told::Output { output: Shared::new(output), dropped })
    }

    /// Gives a message, that of the news of this number if of one, to every member that joined before; answers how many
    /// lost it.
    fn give(&mut self, number: Option<u64>, told: Told) -> u64 {
        self.is_told = true;
        let members = self.members.iter().filter(|member| member.is_told(number));
        members.filter(|member| !member.mailbox.put(told.clone())).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tensor::Dtype;
    use crate::session::part::Values;

    const LIMIT: usize = 4;

    /// Bin `k` of two outputs of one byte, `k` and 100 - `k`.
    fn bin(k: u64) -> News {
        let values = [k as u8, 100 - k as u8].into_iter().zip(0..);
        let values = values.map(|(value, number)| Values {
            number,
            dtype: Dtype::U8,
            dims: Vec::new(),
            raw: vec![value].into(),
        });
        let part = Part { skipped_bins: 0, first_bin: k, flags: vec![1 << k], values: values.collect() };
        News::Bins { head: v1::Output { seq: Some(k), ..Default::default() }, parts: vec![(part, None)] }
    }

    /// Hands all out and wakes; answers what was lost.
    fn handed(fanout: &Fanout) -> u64 {
        let mut all = 0;
        loop {
            let Round { told, lost, next } = fanout.hand_out(Instant::now(), |_| {});
            told.iter().for_each(|mailbox| mailbox.wake());
            all += lost;
            if next != Next::Now {
                return all;
            }
        }
    }

    async fn output(joined: &Joined) -> (Arc<Shared<v1::Output>>, u64) {
        match joined.mailbox.next().await {
            Some(Told::Output { output, dropped }) => (output, dropped),
            other => panic!("an output is due, not {other:?}"),
        }
    }

    #[tokio::test]
    async fn who_chose_alike_shares_one_message_and_others_get_their_own() {
        let fanout = Fanout::new(2, LIMIT);
        let [one, same, other] = [vec![true, false], vec![true, false], vec![false, true]]
            .map(|chosen| fanout.join(chosen, None).unwrap());
        assert!(one.is_first && !same.is_first && !other.is_first);
        assert!(fanout.is_chosen(0) && fanout.is_chosen(1));
        fanout.publish(bin(3));
        assert_eq!(handed(&fanout), 0);
        let (first, second, third) = (output(&one).await.0, output(&same).await.0, output(&other).await.0);
        assert!(Arc::ptr_eq(&first, &second));
        let told = |output: &v1::Output| (output.seq, output.blocks[0].output, output.blocks.len());
        assert_eq!((told(&first.message), told(&third.message)), ((Some(3), 0, 1), (Some(3), 1, 1)));
        fanout.leave(other.number);
        assert!(fanout.is_chosen(0) && !fanout.is_chosen(1) && fanout.is_heard());
    }

    #[tokio::test]
    async fn a_full_mailbox_loses_the_newest_and_the_next_message_says_how_many() {
        let fanout = Fanout::new(2, LIMIT);
        let [slow, quick] = [(); 2].map(|()| fanout.join(vec![true; 2], None).unwrap());
        for k in 0..7 {
            fanout.publish(bin(k));
            assert_eq!(handed(&fanout), u64::from(k >= LIMIT as u64), "one loses it, the other not");
            assert_eq!(output(&quick).await.1, 0);
        }
        for k in 0..4 {
            let (got, dropped) = output(&slow).await;
            assert_eq!((got.message.seq, dropped), (Some(k), 0));
        }
        fanout.publish(bin(7));
        handed(&fanout);
        let (got, dropped) = output(&slow).await;
        assert_eq!((got.message.seq, dropped), (Some(7), 3));
    }

    #[tokio::test]
    async fn nobody_is_told_what_was_published_before_it_joined() {
        let fanout = Fanout::new(2, LIMIT);
        let early = fanout.join(vec![true; 2], None).unwrap();
        fanout.publish(bin(0));
        let same = fanout.join(vec![true; 2], None).unwrap();
        let other = fanout.join(vec![true, false], None).unwrap();
        fanout.publish(bin(1));
        handed(&fanout);
        assert_eq!(output(&early).await.0.message.seq, Some(0));
        for joined in [&early, &same, &other] {
            assert_eq!(output(joined).await.0.message.seq, Some(1));
        }
    }

    /// One round; answers what was lost and whether there is more.
    fn round(fanout: &Fanout) -> (u64, bool) {
        let Round { told, lost, next } = fanout.hand_out(Instant::now(), |_| {});
        told.iter().for_each(|mailbox| mailbox.wake());
        (lost, next == Next::Now)
    }

    #[tokio::test]
    async fn news_that_nobody_handed_out_in_time_are_lost_and_counted_directly_before_what_came_after_them() {
        let fanout = Fanout::new(2, LIMIT);
        let one = fanout.join(vec![true; 2], None).unwrap();
        (0..18).for_each(|k| fanout.publish(bin(k)));
        // A few at a time, so that who reads in between loses none of what was kept.
        for k in 0..4 {
            assert_eq!(round(&fanout), (0, true));
            let (got, dropped) = output(&one).await;
            assert_eq!((got.message.seq, dropped), (Some(k), 0));
        }
        // There is room again while what was there before the loss still waits.
        fanout.publish(bin(18));
        fanout.publish(bin(19));
        for k in 4..16 {
            assert_eq!(round(&fanout), (0, true));
            let (got, dropped) = output(&one).await;
            assert_eq!((got.message.seq, dropped), (Some(k), 0));
        }
        assert_eq!((round(&fanout), round(&fanout)), ((2, true), (0, false)));
        for (k, lost) in [(18, 2), (19, 0)] {
            let (got, dropped) = output(&one).await;
            assert_eq!((got.message.seq, dropped), (Some(k), lost));
        }
    }

    #[tokio::test]
    async fn nobody_is_told_of_losses_before_it_joined() {
        let fanout = Fanout::new(2, LIMIT);
        let early = fanout.join(vec![true; 2], None).unwrap();
        (0..18).for_each(|k| fanout.publish(bin(k)));
        let late = fanout.join(vec![true; 2], None).unwrap();
        fanout.publish(bin(18));
        for _ in 0..16 {
            round(&fanout);
            output(&early).await;
        }
        assert_eq!(handed(&fanout), 3 + 1);
        fanout.publish(bin(19));
        handed(&fanout);
        for (joined, lost) in [(&early, 3), (&late, 1)] {
            let (got, dropped) = output(joined).await;
            assert_eq!((got.message.seq, dropped), (Some(19), lost));
        }
        // Nor of such as nobody was left for.
        (0..20).for_each(|_| fanout.publish(bin(20)));
        fanout.leave(early.number);
        fanout.leave(late.number);
        assert_eq!(fanout.hand_out(Instant::now(), |_| {}).next, Next::Over);
        let next = fanout.join(vec![true; 2], None).unwrap();
        fanout.publish(bin(21));
        handed(&fanout);
        let (got, dropped) = output(&next).await;
        assert_eq!((got.message.seq, dropped), (Some(21), 0));
    }

    #[tokio::test]
    async fn a_round_is_of_few_messages_also_where_one_frame_closed_many_parts() {
        let fanout = Fanout::new(2, LIMIT);
        let one = fanout.join(vec![true; 2], None).unwrap();
        let parts = (0..10).flat_map(|k| match bin(2 * k) {
            News::Bins { parts, .. } => parts,
            _ => Vec::new(),
        });
        fanout.publish(News::Bins { head: v1::Output::default(), parts: parts.collect() });
        for k in 0..10 {
            assert_eq!(round(&fanout), (0, k < 9));
            let (got, dropped) = output(&one).await;
            assert_eq!((got.message.first_bin, dropped), (2 * k, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thinned_message_says_what_was_lost_within_it() {
        let fanout = Fanout::new(2, LIMIT);
        let period = Some(Duration::from_millis(100));
        let one = fanout.join(vec![true; 2], period).unwrap();
        fanout.publish(bin(0));
        handed(&fanout);
        assert_eq!(output(&one).await.1, 0);
        (1..19).for_each(|k| fanout.publish(bin(k)));
        handed(&fanout);
        // Within the interval: it gets all of it, and is told what that lacks.
        let late = fanout.join(vec![true; 2], period).unwrap();
        fanout.publish(bin(19));
        tokio::time::advance(Duration::from_millis(100)).await;
        handed(&fanout);
        for joined in [&one, &late] {
            let (got, dropped) = output(joined).await;
            let interval = got.message.interval.unwrap();
            assert_eq!((got.message.first_bin, interval.bins, interval.present, dropped), (1, 19, 17, 2));
        }
        tokio::time::advance(Duration::from_millis(100)).await;
        fanout.publish(bin(20));
        handed(&fanout);
        assert_eq!(output(&one).await.1, 0);
    }

    #[tokio::test]
    async fn the_end_is_told_behind_what_waits_and_nobody_joins_after_it() {
        let fanout = Fanout::new(2, 1);
        let one = fanout.join(vec![true; 2], None).unwrap();
        (0..3).for_each(|k| fanout.publish(bin(k)));
        fanout.end(Told::Closed("done".into()));
        assert_eq!(handed(&fanout), 2);
        assert_eq!(output(&one).await.0.message.seq, Some(0));
        let Some(Told::Closed(why)) = one.mailbox.next().await else { panic!("the end is due") };
        assert_eq!(why, "done; the last 2 messages were dropped");
        assert!(one.mailbox.next().await.is_none());
        assert!(fanout.join(vec![true; 2], None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thinned_message_comes_once_a_period_and_no_bin_is_told_twice_or_never() {
        let fanout = Fanout::new(2, 64);
        let period = Duration::from_millis(100);
        let one = fanout.join(vec![true, false], Some(period)).unwrap();
        let begun = Instant::now();
        let mut messages = Vec::new();
        for k in 0..31 {
            fanout.publish(bin(k));
            let round = fanout.hand_out(Instant::now(), |_| {});
            let Next::Round(due) = round.next else { panic!("{:?}", round.next) };
            assert!(due.is_none_or(|due| due > Instant::now()));
            while let Ok(Some(told)) = tokio::time::timeout(Duration::ZERO, one.mailbox.next()).await {
                messages.push((begun.elapsed(), told));
            }
            tokio::time::advance(Duration::from_millis(30)).await;
        }
        fanout.end(Told::Closed(String::new()));
        handed(&fanout);
        while let Some(told) = one.mailbox.next().await {
            messages.push((begun.elapsed(), told));
        }
        let mut next_bin = 0;
        let mut last_at = None;
        for (at, told) in &messages[..messages.len() - 1] {
            let Told::Output { output, .. } = told else { panic!("{told:?}") };
            let (message, interval) = (&output.message, output.message.interval.unwrap());
            let bins = message.first_bin..message.first_bin + interval.bins;
            assert_eq!((message.first_bin, message.n, interval.present), (next_bin, 1, interval.bins));
            assert_eq!(message.flags, [bins.clone().fold(0, |all, k| all | 1 << k)]);
            let block = &message.blocks[0];
            let raw = |tensor: &Option<v1::Tensor>| tensor.as_ref().unwrap().raw[0];
            assert_eq!(message.blocks.len(), 1);
            assert_eq!((raw(&block.min), raw(&block.max)), (bins.start as u8, bins.end as u8 - 1));
            assert_eq!((raw(&block.last), block.tensor.as_ref()), (bins.end as u8 - 1, None));
            next_bin = bins.end;
            // The last one goes with the end, whenever that is.
            assert!(last_at.is_none_or(|last| *at >= last + period) || next_bin == 31);
            last_at = Some(*at);
        }
        assert_eq!(next_bin, 31);
        assert!(messages.len() <= 2 + 10 + 1, "{}", messages.len());
    }
}
