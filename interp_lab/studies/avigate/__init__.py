"""avigate: how far the gates of an audio-visual network let the audio through, and what for."""
