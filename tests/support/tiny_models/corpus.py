"""A page of text from which the tiny vocabularies learn their merges.

English first, then German, Chinese, code and numbers, so that ordinary sentences become words, and
umlauts and wide characters meet both learned pieces and byte tokens.
"""

from __future__ import annotations

CORPUS = """\
The river runs past the old mill and the children run along the river to the bridge. In the morning
the water is cold, and in the evening the light on the water is gold. There is a house near the
bridge, and in the house there is a table, and on the table there is a letter that nobody has read.

When the rain comes, the people of the town close their windows and wait. They talk about the
weather, about the price of bread, about the road that will be built next year. Nothing they say is
new, but they say it well, and the listener who has time will learn something from them every time.

A model reads one word after another and says which word is likely to come next. If it has read the
same words before, it can guess the rest of the sentence; if the guess is right, time is saved, and
if the guess is wrong, nothing is lost. That is the whole idea: guess, check, keep what is right,
and continue from there. What is the answer? It is always the one the model would have given.

Please write a short list of things to do:
1. Read the question again.
2. Answer the question in one sentence.
3. Check the answer, and then check it again.

Der Fluss fließt an der alten Mühle vorbei, und die Kinder laufen über die Brücke nach Hause. Am
Abend wird es kühl, und die Leute schließen die Fenster. Für heute ist es genug; morgen geht es
weiter. Das ist schön, und das ist auch gut so.

The mill stood empty for many years. Then a woman came from another town and bought it, because she
liked the sound of the water and because it was cheap. She worked there every day, from morning to
evening, until the wheel turned again. Now the people of the town bring their grain to her, and she
gives them flour; they bring her stories too, and she writes them down. "Every story is true", she
says, "if someone believes it for as long as it takes to tell." Her book has more than three hundred
pages now. Would you like to read it? You can find it on the table, next to the letter.

Die Frau aus der Mühle schreibt jeden Abend. Sie schreibt über das Wasser, über die Kinder und über
die Brücke. „Jede Geschichte ist wahr“, sagt sie, „solange man sie glaubt.“

河水流过老磨坊，孩子们沿着河边跑。早上的水很冷，晚上的水是金色的。他们说的话不是新的，但是他们说得很好。

def total(values):
    result = 0
    for value in values:
        if value > 0:
            result = result + value
    return result

def main(name, count=10):
    for index in range(count):
        print(index, name, total([1, 2, 3]))
    return {"name": name, "count": count, "total": 100, "time": 2024}
"""
