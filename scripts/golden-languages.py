#!/usr/bin/env python3
"""Probabilities of languages as langdetect gives them with fixed seeds, for eval/tests/golden/languages.jsonl.

usage: golden-languages.py OUT.jsonl
needs: langdetect 1.0.9
A line is {text, seeds: [[[CODE, PROBABILITY], ...] of seed 0, of seed 1]}; `null` where a text has nothing to go by.
"""
import json
import sys

from langdetect import DetectorFactory, LangDetectException, detect_langs

# Our own sentences, in every language that langdetect knows but those that share letters and words with others here.
SENTENCES = """
Die ou meul staan langs die rivier, en elke oggend dra die meulenaar se dogter brood na die dorp.
تقع المدينة القديمة على ضفة النهر. يذهب الناس كل صباح إلى السوق لشراء الخبز.
Старият град се намира край реката. Всяка сутрин хората отиват на пазара.
পুরানো শহরটি নদীর তীরে অবস্থিত। প্রতিদিন সকালে মানুষ বাজারে যায়।
La ciutat vella és a la vora del riu. Cada matí la gent va al mercat a comprar pa i fruita.
Staré město leží u řeky. Každé ráno chodí lidé na trh, aby si koupili chléb a ovoce.
Mae'r hen dref ar lan yr afon. Bob bore mae pobl yn mynd i'r farchnad i brynu bara a ffrwythau.
Den gamle by ligger ved floden. Hver morgen går folk på markedet for at købe brød og frugt.
Die alte Stadt liegt am Fluss. Jeden Morgen gehen die Leute auf den Markt, um Brot und Obst zu kaufen.
Η παλιά πόλη βρίσκεται δίπλα στο ποτάμι. Κάθε πρωί οι άνθρωποι πηγαίνουν στην αγορά.
The old town lies by the river. Every morning people go to the market to buy bread and fruit.
La ciudad vieja está a la orilla del río. Todas las mañanas la gente va al mercado para comprar pan.
Vanalinn asub jõe ääres. Igal hommikul lähevad inimesed turule leiba ja puuvilju ostma.
شهر قدیمی در کنار رودخانه قرار دارد. مردم هر روز صبح برای خرید نان به بازار می‌روند.
Vanha kaupunki sijaitsee joen rannalla. Joka aamu ihmiset menevät torille ostamaan leipää.
La vieille ville se trouve au bord de la rivière. Chaque matin les gens vont au marché.
જૂનું શહેર નદીના કિનારે આવેલું છે. દરરોજ સવારે લોકો બજારમાં જાય છે.
העיר העתיקה שוכנת על גדת הנהר. בכל בוקר אנשים הולכים לשוק לקנות לחם.
पुराना शहर नदी के किनारे बसा है। हर सुबह लोग रोटी और फल खरीदने के लिए बाज़ार जाते हैं।
Stari grad leži uz rijeku. Svakog jutra ljudi idu na tržnicu kupiti kruh i voće.
A régi város a folyó partján fekszik. Minden reggel az emberek a piacra mennek kenyeret venni.
Kota tua itu terletak di tepi sungai. Setiap pagi orang-orang pergi ke pasar untuk membeli roti.
La vecchia città si trova sulla riva del fiume. Ogni mattina la gente va al mercato.
古い町は川のそばにあります。毎朝、人々はパンと果物を買いに市場へ行きます。
ಹಳೆಯ ನಗರವು ನದಿಯ ದಡದಲ್ಲಿದೆ. ಪ್ರತಿದಿನ ಬೆಳಿಗ್ಗೆ ಜನರು ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗುತ್ತಾರೆ.
오래된 도시는 강가에 있습니다. 매일 아침 사람들은 빵과 과일을 사러 시장에 갑니다.
Senamiestis yra prie upės. Kiekvieną rytą žmonės eina į turgų pirkti duonos ir vaisių.
Vecpilsēta atrodas upes krastā. Katru rītu cilvēki iet uz tirgu pirkt maizi un augļus.
Стариот град лежи покрај реката. Секое утро луѓето одат на пазар да купат леб и овошје.
പഴയ നഗരം നദിയുടെ തീരത്താണ്. എല്ലാ ദിവസവും രാവിലെ ആളുകൾ ചന്തയിൽ പോകുന്നു.
जुने शहर नदीच्या काठावर वसलेले आहे. दररोज सकाळी लोक बाजारात जातात.
पुरानो सहर नदीको किनारमा अवस्थित छ। हरेक बिहान मानिसहरू बजार जान्छन्।
De oude stad ligt aan de rivier. Elke ochtend gaan de mensen naar de markt om brood te kopen.
Den gamle byen ligger ved elva. Hver morgen går folk til torget for å kjøpe brød og frukt.
ਪੁਰਾਣਾ ਸ਼ਹਿਰ ਨਦੀ ਦੇ ਕੰਢੇ ਉੱਤੇ ਵਸਿਆ ਹੋਇਆ ਹੈ। ਹਰ ਸਵੇਰ ਲੋਕ ਬਾਜ਼ਾਰ ਜਾਂਦੇ ਹਨ।
Stare miasto leży nad rzeką. Każdego ranka ludzie chodzą na targ, żeby kupić chleb i owoce.
A cidade velha fica na margem do rio. Todas as manhãs as pessoas vão ao mercado comprar pão.
Orașul vechi se află pe malul râului. În fiecare dimineață oamenii merg la piață să cumpere pâine.
Старый город стоит на берегу реки. Каждое утро люди ходят на рынок, чтобы купить хлеб.
Staré mesto leží pri rieke. Každé ráno chodia ľudia na trh kúpiť chlieb a ovocie.
Staro mesto leži ob reki. Vsako jutro gredo ljudje na tržnico kupit kruh in sadje.
Magaalada hore waxay ku taal webiga agtiisa. Subax kasta dadku waxay aadaan suuqa si ay rooti u soo iibsadaan.
Qyteti i vjetër ndodhet buzë lumit. Çdo mëngjes njerëzit shkojnë në treg për të blerë bukë.
Den gamla staden ligger vid floden. Varje morgon går folk till torget för att köpa bröd och frukt.
Mji wa kale uko kando ya mto. Kila asubuhi watu huenda sokoni kununua mkate na matunda.
பழைய நகரம் ஆற்றின் கரையில் அமைந்துள்ளது. ஒவ்வொரு காலையும் மக்கள் சந்தைக்குச் செல்கிறார்கள்.
పాత నగరం నది ఒడ్డున ఉంది. ప్రతి ఉదయం ప్రజలు మార్కెట్‌కు వెళతారు.
เมืองเก่าตั้งอยู่ริมแม่น้ำ ทุกเช้าผู้คนไปตลาดเพื่อซื้อขนมปังและผลไม้สด
Ang lumang bayan ay nasa tabi ng ilog. Tuwing umaga pumupunta ang mga tao sa palengke upang bumili ng tinapay.
Eski şehir nehrin kıyısındadır. Her sabah insanlar ekmek ve meyve almak için pazara gider.
Старе місто лежить біля річки. Щоранку люди ходять на ринок, щоб купити хліб і фрукти.
پرانا شہر دریا کے کنارے واقع ہے۔ ہر صبح لوگ روٹی خریدنے کے لیے بازار جاتے ہیں۔
Thành phố cổ nằm bên bờ sông. Mỗi buổi sáng người dân đi chợ để mua bánh mì và trái cây.
古老的城市坐落在河边。每天早上人们都去市场买面包和水果。
古老的城市坐落在河邊。每天早上人們都去市場買麵包和水果。
""".strip().splitlines()
ENGLISH = SENTENCES[10]
# Addresses, marks apart from their letters, commas below, capitals, digits, nothing at all.
MORE = [
    "Thành phố cổ nằm bên bờ sông, mỗi sáng đi chợ.",
    "Oraşul vechi: şi ţară, și țară.",
    "See https://example.org/path?a=1&b=2 or write to some.body@example.org, thanks.",
    "A B C D E F", "I", "42 + 1 = 43", "", "...", "OK", "No way!", "Hello  World\n\n\nhello\tworld",
    "Ma HELLO città IS nice MORE words THAN one.", "ﾊﾝｶｸ カタカナ ㄅㄆㄇ 한글 漢字 汉字",
]


def told(text, seed):
    DetectorFactory.seed = seed
    try:
        return [[found.lang, found.prob] for found in detect_langs(text)]
    except LangDetectException:
        return None


def main():
    texts = SENTENCES + MORE
    texts += [sentence.upper() for sentence in SENTENCES if sentence.upper() != sentence]
    texts += [sentence[: len(sentence) // 4] for sentence in SENTENCES]
    texts += [sentence[:40] + " " + ENGLISH[:40] for sentence in SENTENCES]
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for text in texts:
            row = {"text": text, "seeds": [told(text, seed) for seed in (0, 1)]}
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(len(texts), "texts")


if __name__ == "__main__":
    main()
