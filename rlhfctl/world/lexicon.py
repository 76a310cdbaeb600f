"""Vocabulary of the embedded world, in which every word is one token of its tokenizer."""

from __future__ import annotations

NAMES = (
    "Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Greta", "Hugo", "Ida", "Jack", "Kate", "Leo",
    "Mia", "Nora", "Oscar", "Paul", "Rosa", "Sam", "Tom", "Vera",
)  # fmt: skip
CITIES = (
    "Oslo", "Rome", "Paris", "London", "Berlin", "Madrid", "Vienna", "Lisbon", "Dublin", "Athens",
    "Prague", "Warsaw", "Cairo", "Tokyo", "Delhi", "Boston",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink")
THINGS = (
    "cup", "lamp", "book", "chair", "table", "box", "hat", "coat", "door", "bag", "clock", "pen",
    "ball", "plate",
)  # fmt: skip
GOODS = (
    "apples", "pears", "eggs", "coins", "stamps", "cards", "shells", "stones", "nuts", "roses",
    "cakes", "toys",
)  # fmt: skip
LIST_WORDS = (
    "stone", "tree", "river", "bird", "cat", "dog", "horse", "fish", "cloud", "rain", "snow", "sun",
    "moon", "star", "bread", "milk", "salt", "fire", "gold", "iron", "wind", "leaf", "seed", "boat",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("high", "low"), ("old", "new"),
    ("rich", "poor"), ("early", "late"), ("strong", "weak"), ("full", "empty"), ("wet", "dry"),
    ("hard", "soft"), ("loud", "quiet"), ("light", "dark"), ("near", "far"), ("open", "closed"),
    ("happy", "sad"), ("thick", "thin"), ("long", "short"), ("sweet", "bitter"), ("wide", "narrow"),
)  # fmt: skip
NUMBERS = tuple(str(number) for number in range(41))
LARGEST = 20
