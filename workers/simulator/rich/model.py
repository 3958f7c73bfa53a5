"""The model behind the simulator's wires: what it says to a request, and what its prefix cache did for it.

HTTP, limits and the ledger are the server's. Calls at once and calls in a batch are answered here alike.
"""

from __future__ import annotations

from functools import partial

from fleet.workers.simulator.answers import Answers, SimulatedAnswer
from fleet.workers.simulator.bad_bots import BadBots, Conduct
from fleet.workers.simulator.chance import Chance, Draw, happens
from fleet.workers.simulator.collapse import Collapse
from fleet.workers.simulator.ledger import Classes
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.prefix_cache import NOTHING, PrefixCache
from fleet.workers.simulator.recordings import read_recordings
from fleet.workers.simulator.rich.acting import Acting, Manner, manner_of
from fleet.workers.simulator.rich.spoken import Choice, Spoken, speak_richly
from fleet.workers.simulator.rich.wanted import Wanted
from fleet.workers.simulator.voices import Voice, Voices
from fleet.workers.simulator.wires.wire import CompletionRequest, Wire


class SimulatedModel:
    """Says what a simulated provider answers.

    Args:
        options: The seed and the recorded answers.

    Raises:
        ConfigurationError: When the file of recorded answers is not usable.
    """

    def __init__(self, options: SimulatorOptions) -> None:
        self.recorded = self.duplicates = 0
        self.chance = Chance(options.seed)
        self._options = options
        self._voices = Voices()
        self.collapse, self.bad_bots = Collapse(self._voices), BadBots(self._voices)
        self._cache = PrefixCache(options.cache_places, options.cache_machine_rpm)
        self._casts = self._load_answers()

    def hear(self, asked: CompletionRequest) -> Conduct | None:
        """Remember whose voice asks, and return how it behaves; None for a good one."""
        voice = (asked.system, asked.temperature)
        self._voices.hear(voice)
        return self.bad_bots.conduct(voice)

    def say(self, asked: CompletionRequest, draw: Draw, max_tokens: int | None) -> SimulatedAnswer:
        """Return the plain answer of a good voice, at most so many tokens of it."""
        voice: Voice = (asked.system, asked.temperature)
        collapsed = self.collapse.answer(voice, draw, max_tokens=max_tokens)
        cast = self._casts[self._voices.hear(voice) % len(self._casts)]
        return collapsed or cast.answer(asked.question, draw, max_tokens=max_tokens)

    def speak(
        self,
        asked: CompletionRequest,
        wanted: Wanted,
        draw: Draw,
        spoilt: SimulatedAnswer | None,
        owner: str,
        now_s: float,
    ) -> Spoken:
        """Return all that a rich request gets. Raises `WireError`.

        Args:
            asked: The request.
            wanted: What it asks beyond an answer.
            draw: The chance of this call.
            spoilt: What a bad voice says instead.
            owner: Whose cache is asked: key and model.
            now_s: Time of the cache.
        """
        cached = NOTHING
        if wanted.places:
            if wanted.cache_key is not None:
                owner = self._cache.machine(owner, wanted.cache_key, wanted.places, now_s)
            cached = self._cache.look(owner, wanted.places, now_s)
        if spoilt is not None:
            return Spoken((Choice(text=spoilt.text, tokens=spoilt.tokens, matched=spoilt.matched),), cached)
        words = draw
        if wanted.seed is not None:
            words = self.chance.seeded(draw, f"{wanted.seed} {asked.system} {asked.question}")
        acting = self._acting(asked, wanted, draw) if wanted.tools else None
        say = partial(self.say, asked)
        return Spoken(speak_richly(wanted, asked.question, asked.max_tokens, say, words, acting), cached)

    def used(self, asked: CompletionRequest, spoken: Spoken, wire: Wire, now_s: float) -> Classes:
        """Return the classes of a rich call; its prompt is in the cache from now on."""
        wanted, cached = asked.wanted or Wanted(), spoken.cached
        self._cache.keep(cached.owner, wanted.places, now_s)
        written = (cached.written, cached.written_long) if wire.tells_writes else (0, 0)
        return Classes(cached.read, *written, spoken.thinking_tokens, wanted.tier)

    def _acting(self, asked: CompletionRequest, wanted: Wanted, draw: Draw) -> Acting | None:
        """Return how a model with tools acts in this run; None for one that is no agent's. Raises `WireError`."""
        manner = manner_of(asked.model, every_model=self._options.agents)
        if manner is None:
            return None
        voice = f"{asked.temperature} {asked.system}"
        if happens(self.chance.seeded(draw, f"loops {voice}").words, self._options.loop_share):
            manner = Manner(cycle=1)
        return Acting(manner, self.chance.seeded(draw, f"acts {voice} {wanted.tool_turns.question}").words)

    def _load_answers(self) -> tuple[Answers, ...]:
        options = self._options
        if options.answers is None:
            return (Answers(),)
        read = partial(read_recordings, options.answers, question_field=options.question_field)
        recorded = [read(answer_field=field) for field in options.answer_field.split(",")]
        self.recorded, self.duplicates = len(recorded[0].answers), recorded[0].duplicates
        return tuple(Answers(one.answers) for one in recorded)
