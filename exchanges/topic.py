"""The topic exchange: a message goes to every destination whose pattern matches its routing key.

Keys and patterns are words separated by dots. In a pattern ``*`` stands for exactly one word and
``#`` for any number of words, none included. An empty word is a word (``a.`` has two), but the
empty key has no words at all. Every other word matches itself only, case included.

The patterns form a trie, and a key walks it once, with the set of all nodes that its words so far
can reach. So routing costs at most (words of the key) x (nodes reached), however many ``#`` a
pattern holds; patterns that the key does not begin to match cost nothing.

Destinations come in an order given by the bindings' history alone, not always that of binding.
"""

from typing import Generic

from exchanges.base import Binding, D, Destinations, Exchange, Headers, Identity

ONE_WORD = "*"
ANY_WORDS = "#"


class TopicExchange(Exchange[D]):
    """Routes by matching the routing key with patterns of words."""

    def __init__(self) -> None:
        super().__init__()
        self._root: _Node[D] = _Node()

    def route(self, routing_key: str, headers: Headers) -> tuple[D, ...]:
        """The destinations of all patterns that match this key."""
        matching = self._match(_words(routing_key))
        if not matching:
            return ()
        if len(matching) == 1:
            return matching[0].all()
        return tuple(dict.fromkeys([found for each in matching for found in each.all()]))

    def _match(self, words: list[str]) -> list[Destinations[D]]:
        root = self._root
        reached = [root]
        # Nodes behind a "#". Once reached they stay, since "#" also takes every further word;
        # a dict, because two ways may lead to the same one.
        staying: dict[_Node[D], None] = {}
        if root.after_any_words is not None:
            staying[root.after_any_words] = None
        for word in words:
            nodes = [*reached, *staying] if staying else reached
            reached = []
            for node in nodes:
                if word in node.after_word:
                    reached.append(node.after_word[word])
                if node.after_one_word is not None:
                    reached.append(node.after_one_word)
            for node in reached:
                if node.after_any_words is not None:
                    staying[node.after_any_words] = None
            if not reached and not staying:
                return []
        reached.extend(staying)
        return [node.destinations for node in reached if node.destinations is not None]

    def _add_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        node = self._root
        for word in _pattern(binding.binding_key):
            child = node.child(word)
            if child is None:
                child = _Node()
                node.set_child(word, child)
            node = child
        if node.destinations is None:
            node.destinations = Destinations()
        node.destinations.add(binding.destination)

    def _remove_route(self, identity: Identity[D], binding: Binding[D]) -> None:
        node = self._root
        path: list[tuple[_Node[D], str]] = []
        for word in _pattern(binding.binding_key):
            child = node.child(word)
            assert child is not None
            path.append((node, word))
            node = child
        assert node.destinations is not None
        node.destinations.remove(binding.destination)
        if not node.destinations:
            node.destinations = None
        while path and node.is_unused:
            node, word = path.pop()
            node.set_child(word, None)


class _Node(Generic[D]):
    """The end of one or more equal beginnings of patterns."""

    __slots__ = ("after_any_words", "after_one_word", "after_word", "destinations")

    def __init__(self) -> None:
        # The two wildcards have a place of their own: a key may hold the words "*" and "#" too.
        self.after_word: dict[str, _Node[D]] = {}
        self.after_one_word: _Node[D] | None = None
        self.after_any_words: _Node[D] | None = None
        self.destinations: Destinations[D] | None = None

    def child(self, word: str) -> "_Node[D] | None":
        """The node one word of a pattern further."""
        if word == ONE_WORD:
            return self.after_one_word
        if word == ANY_WORDS:
            return self.after_any_words
        return self.after_word.get(word)

    def set_child(self, word: str, node: "_Node[D] | None") -> None:
        """Put a node one word further, or remove the one that is there."""
        if word == ONE_WORD:
            self.after_one_word = node
        elif word == ANY_WORDS:
            self.after_any_words = node
        elif node is None:
            del self.after_word[word]
        else:
            self.after_word[word] = node

    @property
    def is_unused(self) -> bool:
        """Whether no pattern ends or goes on here."""
        return (
            self.destinations is None
            and not self.after_word
            and self.after_one_word is None
            and self.after_any_words is None
        )


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def _pattern(binding_key: str) -> list[str]:
    """The words of a pattern, with "#" after "#" left out: it would match nothing more.

    So no node behind a "#" has another "#" behind it, which `TopicExchange._match` relies on.
    """
    words = _words(binding_key)
    return [
        word
        for i, word in enumerate(words)
        if not (word == ANY_WORDS and i > 0 and words[i - 1] == ANY_WORDS)
    ]
