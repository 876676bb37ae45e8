//! How often a peer that is not there is dialled: less and less, and never by the beat. That it is dialled again at all is
//! `a_lost_peer_is_dialled_again`.

use super::*;

#[test]
fn a_pause_is_random_between_its_half_and_its_whole() {
    let whole = Duration::from_millis(1_000);
    let drawn: BTreeSet<Duration> = (0..200).map(|_| dial::jitter(whole)).collect();
    assert!(drawn.iter().all(|pause| (whole / 2..=whole).contains(pause)), "{drawn:?}");
    assert!(drawn.len() > 50, "{} of 256 pauses in 200 draws", drawn.len());
}

#[test]
fn a_pause_doubles_up_to_the_longest() {
    let (least, most) = NetworkConfig::default().dial_again;
    let pauses = std::iter::successors(Some(least), |pause| Some(dial::longer(*pause, most)));
    let millis: Vec<u128> = pauses.take(10).map(|pause| pause.as_millis()).collect();
    assert_eq!(millis, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
}
