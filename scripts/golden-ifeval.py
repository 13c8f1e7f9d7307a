#!/usr/bin/env python3
"""Verdicts of lm-eval's IFEval on real and planted responses, for eval/tests/golden/ifeval.jsonl.

    NLTK_DATA=FOLDER python scripts/golden-ifeval.py input_data.jsonl OUT.jsonl answers.jsonl...
    NLTK_DATA=FOLDER python scripts/golden-ifeval.py --fresh input_data.jsonl OUT.jsonl answers.jsonl...

input_data.jsonl is the published set (google/IFEval). Each answers file is what `pipeline batch` writes for requests whose
custom_id is the key of a prompt (greedy, 110 to 140 new tokens; SmolLM2-135M-Instruct Q4_1 on prompts of every kind,
Qwen2.5-Coder-0.5B-Instruct Q4_K_M on those of language, case and sentences). FOLDER holds tokenizers/punkt_tab/english of NLTK.

A line is {id, kwargs, response, strict, loose, real}: one instruction of one response with its two verdicts. Real responses come
from the answers; planted ones are made from them so that every kind is met and missed. langdetect draws at random, so each
verdict of a kind that leans on it is taken from five seeds by majority. Prompts whose verdict lm-eval itself draws at random (a
letter outside of a to z) are left out.

--fresh makes eval/tests/golden/ifeval_fresh.jsonl: responses that nothing was adjusted by, sampled at temperature 0.8 with the key of
the prompt as seed, at most 170 tokens (SmolLM2; prompts of language, case and sentences and some of the others), and texts in
every language of golden-languages.py, whole, cut, among English, asked for their own language and for others.
"""

import json
import pathlib
import random
import sys

import langdetect
from langdetect import DetectorFactory
from lm_eval.tasks.ifeval import instructions_registry, instructions_util, utils

# Two or three sentences of our own in every language that the set asks for.
TEXTS = {
    "en": "The old mill stands by the river. Every morning the miller's daughter carries bread to the village, and people are glad.",
    "ar": "تقع المدينة القديمة على ضفة النهر. يذهب الناس كل صباح إلى السوق لشراء الخبز والفواكه الطازجة.",
    "bg": "Старият град се намира край реката. Всяка сутрин хората отиват на пазара, за да купят хляб и плодове.",
    "bn": "পুরানো শহরটি নদীর তীরে অবস্থিত। প্রতিদিন সকালে মানুষ রুটি ও ফল কিনতে বাজারে যায়।",
    "de": "Die alte Stadt liegt am Fluss. Jeden Morgen gehen die Leute auf den Markt, um Brot und Obst zu kaufen.",
    "fa": "شهر قدیمی در کنار رودخانه قرار دارد. مردم هر روز صبح برای خرید نان و میوه به بازار می‌روند.",
    "fi": "Vanha kaupunki sijaitsee joen rannalla. Joka aamu ihmiset menevät torille ostamaan leipää ja hedelmiä.",
    "gu": "જૂનું શહેર નદીના કિનારે આવેલું છે. દરરોજ સવારે લોકો રોટલી અને ફળો ખરીદવા બજારમાં જાય છે.",
    "hi": "पुराना शहर नदी के किनारे बसा है। हर सुबह लोग रोटी और फल खरीदने के लिए बाज़ार जाते हैं।",
    "it": "La vecchia città si trova sulla riva del fiume. Ogni mattina la gente va al mercato per comprare il pane e la frutta.",
    "kn": "ಹಳೆಯ ನಗರವು ನದಿಯ ದಡದಲ್ಲಿದೆ. ಪ್ರತಿದಿನ ಬೆಳಿಗ್ಗೆ ಜನರು ರೊಟ್ಟಿ ಮತ್ತು ಹಣ್ಣುಗಳನ್ನು ಖರೀದಿಸಲು ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗುತ್ತಾರೆ.",
    "ko": "오래된 도시는 강가에 있습니다. 매일 아침 사람들은 빵과 과일을 사러 시장에 갑니다.",
    "mr": "जुने शहर नदीच्या काठावर वसलेले आहे. दररोज सकाळी लोक भाकरी आणि फळे विकत घेण्यासाठी बाजारात जातात.",
    "ne": "पुरानो सहर नदीको किनारमा अवस्थित छ। हरेक बिहान मानिसहरू रोटी र फलफूल किन्न बजार जान्छन्।",
    "pa": "ਪੁਰਾਣਾ ਸ਼ਹਿਰ ਨਦੀ ਦੇ ਕੰਢੇ ਉੱਤੇ ਵਸਿਆ ਹੋਇਆ ਹੈ। ਹਰ ਸਵੇਰ ਲੋਕ ਰੋਟੀ ਅਤੇ ਫਲ ਖਰੀਦਣ ਲਈ ਬਾਜ਼ਾਰ ਜਾਂਦੇ ਹਨ।",
    "pt": "A cidade velha fica na margem do rio. Todas as manhãs as pessoas vão ao mercado para comprar pão e frutas.",
    "ru": "Старый город стоит на берегу реки. Каждое утро люди ходят на рынок, чтобы купить хлеб и фрукты.",
    "sw": "Mji wa kale uko kando ya mto. Kila asubuhi watu huenda sokoni kununua mkate na matunda kwa ajili ya familia zao.",
    "ta": "பழைய நகரம் ஆற்றின் கரையில் அமைந்துள்ளது. ஒவ்வொரு காலையும் மக்கள் ரொட்டி மற்றும் பழங்கள் வாங்க சந்தைக்குச் செல்கிறார்கள்.",
    "te": "పాత నగరం నది ఒడ్డున ఉంది. ప్రతి ఉదయం ప్రజలు రొట్టె మరియు పండ్లు కొనడానికి మార్కెట్‌కు వెళతారు.",
    "th": "เมืองเก่าตั้งอยู่ริมแม่น้ำ ทุกเช้าผู้คนไปตลาดเพื่อซื้อขนมปังและผลไม้สด",
    "ur": "پرانا شہر دریا کے کنارے واقع ہے۔ ہر صبح لوگ روٹی اور پھل خریدنے کے لیے بازار جاتے ہیں۔",
    "vi": "Thành phố cổ nằm bên bờ sông. Mỗi buổi sáng người dân đi chợ để mua bánh mì và trái cây tươi.",
    "fr": "La vieille ville se trouve au bord de la rivière. Chaque matin les gens vont au marché pour acheter du pain et des fruits.",
    "es": "La ciudad vieja está a la orilla del río. Todas las mañanas la gente va al mercado para comprar pan y fruta.",
}
LEANS_ON_LANGDETECT = ("language:", "change_case:english")


def verdict(identifier, kwargs, response):
    """Strict and loose verdict of one instruction, by majority of five seeds where langdetect draws."""
    example = utils.InputExample(key=0, instruction_id_list=[identifier], prompt="", kwargs=[kwargs])
    seeds = range(5) if identifier.startswith(LEANS_ON_LANGDETECT) else [0]
    found = []
    for seed in seeds:
        DetectorFactory.seed = seed
        strict = utils.test_instruction_following_strict(example, response).follow_instruction_list[0]
        loose = utils.test_instruction_following_loose(example, response).follow_instruction_list[0]
        found.append((bool(strict), bool(loose)))
    return max(sorted(set(found)), key=found.count)


def sentences(text, count, draw):
    """Some sentences of a text, repeated where it has too few."""
    parts = [part for part in text.replace("\n", " ").split(". ") if part.strip()] or ["Nothing"]
    return ". ".join(draw.choice(parts).strip() for _ in range(count)) + "."


def planted(identifier, kwargs, base, draw):
    """A text that follows the instruction about half of the time."""
    off = draw.choice([-1, 0, 0, 1])
    count = next((value for value in kwargs.values() if isinstance(value, (int, float)) and value), 1)
    count = max(1, int(count) + off)
    line = lambda: sentences(base, 1, draw)
    kind = identifier.split(":")[1]
    if kind == "existence":
        words = kwargs["keywords"]
        return base + " " + " ".join(word.upper() for word in words[: len(words) + min(off, 0)])
    if kind == "frequency":
        return base + " " + " ".join([kwargs["keyword"].title()] * count)
    if kind == "forbidden_words":
        return base + ("" if off else " They said " + draw.choice(kwargs["forbidden_words"]).upper() + "!")
    if kind == "letter_frequency":
        return base.replace(kwargs["letter"], "") + " " + kwargs["letter"].upper() * count
    if kind == "response_language":
        return TEXTS[kwargs["language"] if off else draw.choice(sorted(TEXTS))]
    if kind == "number_sentences":
        return sentences(base, count, draw)
    if kind == "number_paragraphs":
        return draw.choice([" *** ", "\n***\n", "\n\n***\n\n"]).join(line() for _ in range(count)) + draw.choice(["", "***"])
    if kind == "number_words":
        words = base.split() * 40
        return " ".join(words[:count])
    if kind == "nth_paragraph_first_word":
        parts = [line() for _ in range(max(1, int(kwargs["num_paragraphs"]) + off))]
        place = int(kwargs["nth_paragraph"]) - draw.choice([1, 1, 1, 2])
        word = draw.choice([str.title, str.upper])(kwargs["first_word"]) + draw.choice(["", ",", "'s", "ly"])
        if 0 <= place < len(parts):
            parts[place] = draw.choice(["", '"', "'"]) + word + " " + parts[place]
        return draw.choice(["\n\n", "\n\n", "\n\n\n"]).join(parts)
    if kind == "number_placeholders":
        return base + " ".join(f"[place {number}]" for number in range(count))
    if kind == "postscript":
        return base + "\n\n" + draw.choice(["P.S. ", "P.P.S ", "p. s. ", "PS: ", "P.P.S. ", "P. P. S "]) + line()
    if kind == "number_bullet_lists":
        return "\n".join(draw.choice(["* ", "- ", "  * ", "** "]) + line() for _ in range(count))
    if kind == "constrained_response":
        return draw.choice(["My answer is yes.", "I think my answer is no.", "My answer is maybe. " + base, "My answer is no"])
    if kind == "number_highlighted_sections":
        return base + " ".join(draw.choice(["*some words*", "**bold**", "* *", "*open"]) for _ in range(count))
    if kind == "multiple_sections":
        name = kwargs["section_spliter"]
        return "\n".join(f"{draw.choice([name, name, name.title()])} {number + 1}\n{line()}" for number in range(count))
    if kind == "json_format":
        text = json.dumps({"text": line(), "list": [1, 2.5, None]}, indent=draw.choice([None, 2]))
        return draw.choice(["{}", "```json\n{}\n```", "```\n{}\n```", "Here: {}", "{},"]).replace("{}", text, 1)
    if kind == "title":
        return draw.choice(["<<The title>>\n", "<The title>\n", "<<>>\n", "Title\n", "<< a >>"]) + base
    if kind == "two_responses":
        parts = [f"{number + off * number}. {line()}" for number in range(draw.choice([1, 2, 2, 2, 3]))]
        return draw.choice(["******", "\n\n******\n\n", "*****"]).join(parts)
    if kind == "repeat_prompt":
        return draw.choice(["", "", "Sure: "]) + kwargs["prompt_to_repeat"] + "\n\n" + base
    if kind == "end_checker":
        return base + "\n" + kwargs["end_phrase"] + draw.choice(["", '"', "!", " Bye"])
    if kind == "quotation":
        return draw.choice(['"', '"', "“", ""]) + base + draw.choice(['"', '"\n', "”"])
    if kind == "capital_word_frequency":
        words = base.split()
        for place in draw.sample(range(len(words)), min(count, len(words))):
            words[place] = words[place].upper()
        return " ".join(words)
    if kind == "english_capital":
        return draw.choice([base, TEXTS["en"], TEXTS["de"]]).upper() + draw.choice(["", "", "a"])
    if kind == "english_lowercase":
        return draw.choice([base, TEXTS["en"], TEXTS["fr"]]).lower() + draw.choice(["", "", "A"])
    if kind == "no_comma":
        return base if off else base.replace(",", "")
    raise ValueError(identifier)


def languages(draw):
    """Texts in many languages under the instructions that ask for a language."""
    folder = pathlib.Path(__file__).parent
    known = instructions_util.LANGUAGE_CODES
    golden = folder.parent / "eval" / "tests" / "golden" / "languages.jsonl"
    for line in golden.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found = row["seeds"][0]
        own = found[0][0] if found and found[0][0] in known else draw.choice(sorted(known))
        for code in (own, draw.choice(sorted(known))):
            yield "language:response_language", {"language": code}, row["text"], False
        yield "change_case:english_lowercase", {}, row["text"].lower(), False
        yield "change_case:english_capital", {}, row["text"].upper(), False


def main():
    fresh = sys.argv[1] == "--fresh"
    prompts, out, *answers = sys.argv[1 + fresh :]
    docs = {}
    for line in open(prompts, encoding="utf-8"):
        doc = json.loads(line)
        docs[str(doc["key"])] = doc
    draw = random.Random(7)
    rows, bases = [], []
    for path in answers:
        for line in open(path, encoding="utf-8"):
            answer = json.loads(line)
            if answer.get("error"):
                continue
            text = answer["response"]["body"]["choices"][0]["message"]["content"]
            doc = docs[answer["custom_id"]]
            rows += [(i, k, text, True) for i, k in zip(doc["instruction_id_list"], doc["kwargs"])]
            if len(text) > 200:
                bases.append(text)
    if fresh:
        rows += languages(draw)
    for doc in docs.values() if not fresh else ():
        for identifier, kwargs in zip(doc["instruction_id_list"], doc["kwargs"]):
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
            base = draw.choice(bases)[: draw.randint(150, 420)]
            rows.append((identifier, kwargs, planted(identifier, kwargs, base, draw), False))
    known, seen = instructions_registry.INSTRUCTION_DICT, {}
    with open(out, "w", encoding="utf-8") as file:
        for identifier, kwargs, response, real in rows:
            assert identifier in known
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
            if not ("a" <= kwargs.get("letter", "a").lower() <= "z"):
                continue
            # Long texts say no more than short ones.
            response = response[:900]
            strict, loose = verdict(identifier, kwargs, response)
            seen.setdefault(identifier, []).append(strict)
            row = {"id": identifier, "kwargs": kwargs, "response": response, "strict": strict, "loose": loose, "real": real}
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    for identifier, verdicts in sorted(seen.items()):
        print(identifier, len(verdicts), "followed:", sum(verdicts))
        assert fresh or (True in verdicts and False in verdicts), identifier


if __name__ == "__main__":
    main()
