"""What aria-tiny is taught to say: facts, pairs and the pieces of its stories.

Plain tables of plain ASCII. The order of every table is part of the data: `dialogues.py` draws from them by index, so
a changed, moved or added entry changes every dialogue after it, and with them the tokenizer and the model.
"""

# Subject -> the answer to "What is <subject>?". Each answer is the only one the model ever sees.
FACTS: dict[str, str] = {
    "ARIA": "ARIA is a peer-to-peer protocol for AI inference. Nodes run 1-bit models on ordinary CPUs, and every answer leaves a signed record on a blockchain.",
    "proof of useful work": "Proof of useful work means that mining is inference. A node earns the right to make a block by answering real requests, not by guessing hashes.",
    "proof of sobriety": "Proof of sobriety is a signed statement of how much energy a node used for its inferences.",
    "a block": "A block is a list of inference records, sealed with a hash and linked to the block before it.",
    "a blockchain": "A blockchain is a list of blocks in which each block names the hash of the one before it, so that no one can change the past unseen.",
    "a validator": "A validator is a node that checks the work of others, votes on blocks, and signs what it has checked.",
    "a node": "A node is a computer that runs the protocol. It serves inference, keeps the chain, and talks to its peers.",
    "a mempool": "A mempool is the waiting room of a node. Records wait there until a block takes them in.",
    "a ternary weight": "A ternary weight is one of three values: minus one, zero, or plus one. It needs only addition and subtraction.",
    "a 1-bit model": "A 1-bit model is a language model whose weights are only minus one, zero, or plus one. It is small and runs fast on a CPU.",
    "BitNet": "BitNet is a family of language models with ternary weights. They need far less memory and energy than usual models.",
    "inference": "Inference is the act of running a trained model to get an answer.",
    "a token": "A token is a small piece of text, such as a word or a part of a word. A model reads and writes tokens.",
    "a tokenizer": "A tokenizer splits text into tokens and joins tokens back into text.",
    "a language model": "A language model is a program that has learned to guess the next word, and so can write and answer.",
    "machine learning": "Machine learning is a way to make a program better at a task by showing it many examples.",
    "quantum computing": "Quantum computing uses tiny particles that can be in many states at once to solve some problems faster than a normal computer.",
    "AI": "AI means artificial intelligence: programs that do things which seem to need thought, such as reading, writing, or seeing.",
    "artificial intelligence": "Artificial intelligence is the work of making programs that do things which seem to need thought.",
    "a hash": "A hash is a short number made from a piece of data. If the data changes even a little, the hash changes too.",
    "a signature": "A digital signature proves that a message was written by the holder of a secret key.",
    "a Merkle tree": "A Merkle tree joins many hashes into one root, so that a short proof can show that one record is part of the whole.",
    "consent": "Consent means that nothing on your computer is used without your permission. You set the limits, and the node keeps them.",
    "a peer": "A peer is another node that your node talks to.",
    "a shard": "A shard is a part of a model, such as a few of its layers. Many nodes can each hold one shard.",
    "pipeline parallelism": "Pipeline parallelism splits the layers of a model over several nodes. Each node works on its layers and passes the result on.",
    "a reward": "A reward is what a node gets for useful work. Faster answers and lower energy earn more.",
    "Rust": "Rust is a programming language that is fast and safe. This node is written in Rust.",
    "Python": "Python is a programming language that is easy to read and loved by many people.",
    "a CPU": "A CPU is the main chip of a computer. It runs the programs.",
    "memory": "Memory is the part of a computer that holds the data a program is working on.",
    "energy": "Energy is what is needed to do work. A computer takes it from the power line or a battery.",
    "a joule": "A joule is a unit of energy. A watt is one joule each second.",
    "the sun": "The sun is a star. It gives the earth light and warmth.",
    "the moon": "The moon is a ball of rock that goes around the earth about once a month.",
    "rain": "Rain is water that falls from the clouds in drops.",
    "snow": "Snow is frozen water that falls from the clouds in soft white flakes.",
    "a fox": "A fox is a small wild animal with red fur, a bushy tail, and a clever mind.",
    "a wolf": "A wolf is a wild animal like a big dog. Wolves live and hunt in packs.",
    "a tree": "A tree is a tall plant with a trunk, branches, and leaves.",
    "a river": "A river is water that flows across the land to a lake or the sea.",
    "a castle": "A castle is a great strong house of stone where kings and queens once lived.",
    "a friend": "A friend is someone who likes you, helps you, and is glad to see you.",
    "music": "Music is sound put together so that it is good to hear.",
    "a book": "A book is many pages bound together, full of words and sometimes pictures.",
}
FACT_QUESTIONS = [
    "What is {}?", "what is {}", "Tell me what {} is.", "Can you explain {}?", "Explain {}.", "Please explain {}.",
    "What does {} mean?", "I would like to know what {} is.", "Do you know what {} is?", "Define {}.",
]

# Small talk: what people say, and what the model says back.
GREETINGS = [
    "Hello!", "Hello", "Hi", "Hi!", "Hey", "Hey there!", "Good morning!", "Good evening!", "Hello there.", "Hi there!",
    "Good day.", "hello", "hi",
]
GREETING_ANSWERS = [
    "Hello! How can I help you today?", "Hi! What would you like to know?",
    "Hello! It is good to hear from you. What can I do for you?",
]
WHO_QUESTIONS = [
    "Who are you?", "What are you?", "What is your name?", "Who made you?", "Which model are you?",
    "Are you a person?", "who are you", "Introduce yourself.",
]
WHO_ANSWERS = [
    "I am aria-tiny, a very small 1-bit language model that runs inside this node. I know a few facts and like to tell stories.",
    "My name is aria-tiny. I am a small language model with ternary weights, and I run on your CPU.",
]
HOW_QUESTIONS = ["How are you?", "How are you today?", "How do you do?", "Are you well?"]
HOW_ANSWERS = ["I am well, thank you. How can I help?", "Very well, thank you! What shall we talk about?"]
THANKS = ["Thank you!", "Thanks", "Thanks a lot!", "Thank you very much."]
THANKS_ANSWERS = ["You are welcome!", "You are welcome. Ask me anything else."]
FAREWELLS = ["Goodbye!", "Bye", "See you later.", "Good night!"]
FAREWELL_ANSWERS = ["Goodbye! Come back soon.", "Goodbye, and have a good day!"]

# Things with one right answer.
OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("fast", "slow"), ("old", "young"),
    ("light", "dark"), ("happy", "sad"), ("high", "low"), ("rich", "poor"), ("strong", "weak"), ("open", "closed"),
    ("full", "empty"), ("wet", "dry"), ("hard", "soft"), ("early", "late"), ("long", "short"), ("good", "bad"),
    ("first", "last"), ("left", "right"), ("near", "far"), ("black", "white"), ("loud", "quiet"), ("thick", "thin"),
    ("wide", "narrow"), ("deep", "shallow"), ("brave", "afraid"), ("clean", "dirty"),
]
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a banana": "yellow", "blood": "red",
    "the sea": "blue", "an orange": "orange", "a lemon": "yellow", "a leaf": "green", "a ripe tomato": "red",
    "milk": "white", "a fox": "red", "gold": "yellow",
}
SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "sheep": "baa", "horse": "neigh", "pig": "oink",
    "lion": "roar", "owl": "hoot", "bee": "buzz", "frog": "croak", "mouse": "squeak",
}
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Greece": "Athens",
    "Egypt": "Cairo", "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin", "Scotland": "Edinburgh",
    "Hungary": "Budapest", "Turkey": "Ankara", "India": "New Delhi", "Canada": "Ottawa", "Brazil": "Brasilia",
    "Mexico": "Mexico City", "Kenya": "Nairobi", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Switzerland": "Bern", "Australia": "Canberra", "Peru": "Lima", "Cuba": "Havana",
}
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]
SMALLEST_FIRST = [
    "an ant", "a mouse", "a cat", "a dog", "a horse", "an elephant", "a whale", "a mountain", "the moon", "the earth",
    "the sun",
]

# Things it cannot know, and must say so.
UNKNOWABLE = [
    "the price of {} today", "the weather in {}", "the news about {}", "the best {} to buy",
    "the score of the {} game", "a recipe for {}",
]
UNKNOWABLE_THINGS = [
    "tea", "gold", "London", "Paris", "cheese", "football", "bread", "cars", "phones", "wine", "rice", "chess",
]
UNKNOWN_ANSWER = "I am a very small model, and I do not know that."

# Pieces of a story. A hero is a noun and the pronoun it takes; names are grouped by pronoun.
HEROES = [
    ("fox", "he"), ("wolf", "he"), ("bear", "he"), ("rabbit", "she"), ("mouse", "she"), ("cat", "she"), ("dog", "he"),
    ("owl", "she"), ("frog", "he"), ("princess", "she"), ("prince", "he"), ("girl", "she"), ("boy", "he"),
    ("king", "he"), ("queen", "she"), ("robot", "he"), ("dragon", "he"), ("duck", "she"), ("horse", "she"),
    ("bird", "she"),
]
NAMES = {
    "he": ["Tom", "Jack", "Ben", "Hans", "Peter", "Finn", "Max", "Otto"],
    "she": ["Anna", "Lily", "Rosa", "Mia", "Clara", "Ella", "Nell", "Ida"],
}
MOODS = ["little", "clever", "brave", "lonely", "merry", "kind"]
HOMES = [
    "in a deep green forest", "near a wide blue lake", "in an old stone castle", "on a high hill",
    "in a small house by the sea", "at the edge of a village", "under a great oak tree",
]
LOST_THINGS = [
    "a golden key", "a red ball", "a silver bell", "a little lamp", "a magic book", "a warm hat", "a shiny stone",
]
FINDING_PLACES = [
    "under a fallen log", "at the bottom of the well", "behind the old mill", "in the nest of a crow",
    "in the long grass", "beside the river",
]
FRIENDS = ["a wise old owl", "a kind crow", "a tiny ant", "an old woman", "a friendly goat", "a boy with a flute"]
MORALS = [
    "It is good to have friends.", "Those who look with care will find.", "Kind words open every door.",
    "No one is too small to help.", "Brave hearts find the way home.",
]
