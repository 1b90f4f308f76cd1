"""What the two ends of a connection tell each other of themselves (RFC 9113, section 6.5)."""

from __future__ import annotations

import attrs
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.abuse import GENEROUS, Rates
from wireleap_relay.tunnel.sender import DEFAULT_WINDOW
from wireleap_relay.tunnel.windows import CONNECTION_WINDOW, LARGEST_STREAM_WINDOW, STREAM_WINDOW

#: RFC 9113, section 6.5.2: what a setting may be, and the error for anything else.
_ALLOWED = {
    SettingCodes.ENABLE_PUSH: (0, 1, ErrorCodes.PROTOCOL_ERROR),
    SettingCodes.INITIAL_WINDOW_SIZE: (0, frames.LARGEST_WINDOW, ErrorCodes.FLOW_CONTROL_ERROR),
    SettingCodes.MAX_FRAME_SIZE: (2**14, 2**24 - 1, ErrorCodes.PROTOCOL_ERROR),
    SettingCodes.ENABLE_CONNECT_PROTOCOL: (0, 1, ErrorCodes.PROTOCOL_ERROR),
}


@attrs.frozen
class SessionLimits:
    """What a peer may ask of one connection.

    :ivar streams: open at once.
    :ivar header_list: bytes of one request's headers, as RFC 9113, section 6.5.2, counts them.
    :ivar frame: bytes of payload in one frame.
    :ivar stream_window: bytes under way on one stream that has begun.
    :ivar largest_stream_window: bytes that this may grow to.
    :ivar connection_window: bytes under way on all streams.
    :ivar rates: of what costs a peer nothing.
    """

    streams: int = 1000
    header_list: int = 16 * 1024
    frame: int = 64 * 1024
    stream_window: int = STREAM_WINDOW
    largest_stream_window: int = LARGEST_STREAM_WINDOW
    connection_window: int = CONNECTION_WINDOW
    rates: Rates = GENEROUS

    def announced(self, client: bool) -> bytes:
        """The first frames of either side: SETTINGS, and the connection's window."""
        values: dict[int, int] = {
            SettingCodes.INITIAL_WINDOW_SIZE: self.stream_window,
            SettingCodes.MAX_FRAME_SIZE: self.frame,
            SettingCodes.MAX_HEADER_LIST_SIZE: self.header_list,
        }
        if client:
            values[SettingCodes.ENABLE_PUSH] = 0
        else:
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = self.streams
        return frames.settings(values) + frames.window_update(0, self.connection_window - DEFAULT_WINDOW)


class BadSettings(Exception):
    """A SETTINGS frame holds what it may not."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code)
        self.code = code


def read_settings(frame: bytes) -> dict[int, int]:
    """Read a SETTINGS frame's values; unknown ones are among them.

    :raises BadSettings: where one may not be, or the frame's size is wrong.
    """
    if (len(frame) - frames.HEADER_SIZE) % frames.SETTING_SIZE:
        raise BadSettings(ErrorCodes.FRAME_SIZE_ERROR)
    values = dict(frames.iter_settings(frame))
    for setting, (least, most, code) in _ALLOWED.items():
        if setting in values and not least <= values[setting] <= most:
            raise BadSettings(code)
    return values
