"""Names with a meaning in links of MediaWiki: namespaces, languages of Wikipedia, and its sister projects."""

# ruff: noqa: SIM905 (a list of codes reads better as words)

# Numbers of https://www.mediawiki.org/wiki/Manual:Namespace
MEDIA, FILE, CATEGORY = -2, 6, 14
# Known on every wiki beside its own names; <siteinfo> gives those.
ENGLISH_NAMESPACES = {
    "media": MEDIA, "special": -1, "talk": 1, "user": 2, "user talk": 3, "project": 4, "project talk": 5,
    "wikipedia": 4, "wikipedia talk": 5, "wp": 4, "file": FILE, "image": FILE, "file talk": 7, "image talk": 7,
    "mediawiki": 8, "mediawiki talk": 9, "template": 10, "template talk": 11, "help": 12, "help talk": 13,
    "category": CATEGORY, "category talk": 15, "module": 828, "module talk": 829, "timedtext": 710,
}  # fmt: skip
# Prefixes of other wikis: of [[wikt:word]] a reader wants the word.
SISTER_PROJECTS = frozenset(
    "w wikt wiktionary s wikisource q wikiquote b wikibooks n wikinews v wikiversity voy wikivoyage commons c m meta d "
    "wikidata species wikispecies mw doi rfc iarchive".split()
)
# Wikipedias, open and closed. Codes with a hyphen are known by their form.
LANGUAGE_CODES = frozenset(
    "aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar "
    "bbc bcl bdr be bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cdo ce ceb ch cho chr chy ckb co cr crh "
    "cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi fj fo fon fr "
    "frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr "
    "hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kaj kbd kbp kcg kg "
    "kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo "
    "lrc lt ltg lv lzh mad mai mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn na nah "
    "nan nap nds ne new ng nia nl nn no nov nqo nr nrm nso nup nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl "
    "pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh "
    "shi shn si simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th "
    "ti tig tk tl tly tn to tokipona tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war "
    "wo wuu xal xh xmf yi yo yue za zea zgh zh zu".split()
)
