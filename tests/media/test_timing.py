"""The source frames that output frames show, and the frames of a window."""

from media.timing import ping_pong, window_frames


def test_ping_pong_repeats_no_frame_at_the_turns() -> None:
    assert ping_pong(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert ping_pong(1, 3).tolist() == [0, 0, 0]
    assert ping_pong(5, 3).tolist() == [0, 1, 2]


def test_windows_are_a_25th_of_a_second_apart_at_any_frame_rate() -> None:
    assert window_frames(6, 5, 25)[0].tolist() == [0, 0, 0, 1, 2]
    assert window_frames(20, 5, 50)[10].tolist() == [6, 8, 10, 12, 14]
    assert window_frames(6, 5, 25)[5].tolist() == [3, 4, 5, 5, 5]
