"""scikit-learn: a difficulty-aware classifier in a pipeline, and the distances that it uses."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffident.integrations.sklearn import DifficultyAwareClassifier, RelativeMahalanobis


def main(epochs: int = 15) -> float:
    """Train on handwritten digits; the test accuracy."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    classifier = DifficultyAwareClassifier(epochs=epochs, random_state=0)
    model = make_pipeline(StandardScaler(), classifier).fit(X_train, y_train)

    distances = RelativeMahalanobis().fit(X_train, y_train)
    hardest = distances.difficulty(X_train, y_train).argsort()[-10:]
    print("the ten hardest:", hardest, "their labels:", y_train[hardest])
    return model.score(X_test, y_test)


if __name__ == "__main__":
    print(main())
