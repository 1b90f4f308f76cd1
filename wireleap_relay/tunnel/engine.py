"""How h2 is set up for a session, and what a peer is told at the start."""

from __future__ import annotations

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.sender import DEFAULT_WINDOW
from wireleap_relay.tunnel.windows import CONNECTION_WINDOW, STREAM_WINDOW


@attrs.frozen
class SessionLimits:
    """What a peer may ask of one connection.

    :ivar streams: open at once.
    :ivar header_list: bytes of one request's headers, as RFC 9113, section 6.5.2, counts them.
    :ivar frame: bytes of payload in one frame.
    :ivar stream_window: bytes under way on one stream.
    :ivar connection_window: bytes under way on all streams.
    """

    streams: int = 1000
    header_list: int = 16 * 1024
    frame: int = 64 * 1024
    stream_window: int = STREAM_WINDOW
    connection_window: int = CONNECTION_WINDOW

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


class _Engine(H2Connection):
    """h2, remembering no more closed streams than may matter."""

    MAX_CLOSED_STREAMS = 2048


def make_engine(limits: SessionLimits, client: bool) -> H2Connection:
    """Make the h2 connection of one side, with the prefaces already behind it."""
    engine = _Engine(
        H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_inbound_headers=client,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    # h2 answers a stream too many by ending the connection; so it is not told
    # of that limit, and the session refuses the stream alone.
    known = {SettingCodes.MAX_FRAME_SIZE: limits.frame, SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list}
    engine.local_settings = Settings(client=client, initial_values=known)
    engine.decoder.max_header_list_size = limits.header_list
    engine.max_inbound_frame_size = limits.frame
    engine.initiate_connection()
    engine.clear_outbound_data_buffer()  # the session announces its settings itself
    if not client:
        engine.receive_data(frames.PREFACE)  # the reader has looked at the client's own
    return engine
