"""한국어 검색: 조사가 붙은 낱말도, 합친 낱말의 앞부분도 찾는다."""

import json
import re

from sphinx.search import SearchLanguage

PARTICLES = (
    '은 는 이 가 을 를 의 에 도 만 로 와 과 나 랑 '
    '으로 에서 에게 까지 부터 보다 처럼 마다 조차 이나 이란 '
    '에는 에도 로는 로도 와는 과는 으로는 에서는 에서도 이라는'
).split()
WORD = r'[가-힣]+|[^\W가-힣]+'  # `LitModel은`은 LitModel과 은
_LONGEST_FIRST = sorted(PARTICLES, key=len, reverse=True)


class KoreanSearch(SearchLanguage):
    """`검색어에는`을 검색, 검색어, 검색어에, 검색어에는으로 색인한다.

    질의에서는 조사를 뗀다.
    """

    lang, language_name = 'ko', 'Korean'
    js_splitter_code = r"""
const WORD = /[가-힣]+|[\p{L}\p{N}_]+?(?=[가-힣]|[^\p{L}\p{N}_]|$)/gu;
var splitQuery = (query) => query.match(WORD) || [];
"""
    js_stemmer_code = (
        f'const PARTICLES = {json.dumps(_LONGEST_FIRST, ensure_ascii=False)};'
        """
var Stemmer = function () {
  this.stemWord = (word) => {
    if (!/^[가-힣]{3,}$/.test(word)) return word;
    const cut = (end) => word.endsWith(end) && word.length - end.length >= 2;
    const particle = PARTICLES.find(cut);
    return particle ? word.slice(0, -particle.length) : word;
  };
};
"""
    )

    def split(self, input):
        words = []
        for word in re.findall(WORD, input):
            words.append(word)
            if not '가' <= word[0] <= '힣':
                continue
            if len(word) > 1 and word[1:] in PARTICLES:
                words.append(word[0])  # 층을 → 층
            words += [word[:n] for n in range(2, len(word))]
        return words
