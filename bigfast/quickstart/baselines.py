"""What needs no network: the most frequent class, and logistic regression on bags of words."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.sparse import hstack
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from bigfast.data import Example
from bigfast.quickstart.results import Scores


def majority(train: Sequence[Example], test: Sequence[Example]) -> Scores:
    """Always says the class that is most frequent in `train`."""
    model = DummyClassifier(strategy="most_frequent").fit([[0]] * len(train), _labels(train))
    return _scores(test, model.predict([[0]] * len(test)))


def bag_of_words(train: Sequence[Example], test: Sequence[Example]) -> Scores:
    """Counts of the words of either text, each with weights of its own; l2-regularised."""
    bags = []
    for side in (lambda e: e.text, lambda e: e.pair or ""):
        vectorizer = CountVectorizer(min_df=2).fit(map(side, train))
        bags.append([vectorizer.transform(map(side, part)) for part in (train, test)])
    train_bags, test_bags = (hstack(part) for part in zip(*bags))
    model = LogisticRegression(max_iter=1000).fit(train_bags, _labels(train))
    return _scores(test, model.predict(test_bags))


def _labels(examples: Sequence[Example]) -> list[int]:
    return [example.label for example in examples]


def _scores(test: Sequence[Example], guess: Sequence[int]) -> Scores:
    """The metrics of `ClassifyTask.evaluate`."""
    truth = _labels(test)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, guess, average="macro", zero_division=0
    )
    return Scores(float(accuracy_score(truth, guess)), float(precision), float(recall), float(f1))
