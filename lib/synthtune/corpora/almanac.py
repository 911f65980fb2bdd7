"""The tables of facts that the package's own fact corpus talks about.

Every row is a true, public and undated fact or an old one: cities, rivers, chemical elements, books long out
of copyright, buildings, animals, dishes. The tables were compiled by hand for this package from general
knowledge; nothing is copied from a data set. A lower-case "the " before a name is grammar (it appears in
sentences and not in triples); "-" means the table makes no claim.
"""

from __future__ import annotations

import functools

CITY = """
name | country | continent | river | coast | language | currency | landmark
Paris | France | Europe | the Seine | - | French | the euro | the Eiffel Tower
London | the United Kingdom | Europe | the Thames | - | English | the pound | Tower Bridge
Rome | Italy | Europe | the Tiber | - | Italian | the euro | the Colosseum
Vienna | Austria | Europe | the Danube | - | German | the euro | the Hofburg Palace
Berlin | Germany | Europe | the Spree | - | German | the euro | the Brandenburg Gate
Cologne | Germany | Europe | the Rhine | - | German | the euro | Cologne Cathedral
Prague | the Czech Republic | Europe | the Vltava | - | Czech | the koruna | Charles Bridge
Budapest | Hungary | Europe | the Danube | - | Hungarian | the forint | the Chain Bridge
Warsaw | Poland | Europe | the Vistula | - | Polish | the zloty | the Royal Castle
Krakow | Poland | Europe | the Vistula | - | Polish | the zloty | Wawel Castle
Lisbon | Portugal | Europe | the Tagus | the Atlantic Ocean | Portuguese | the euro | Belem Tower
Porto | Portugal | Europe | the Douro | the Atlantic Ocean | Portuguese | the euro | the Clerigos Tower
Seville | Spain | Europe | the Guadalquivir | - | Spanish | the euro | the Giralda
Athens | Greece | Europe | - | the Aegean Sea | Greek | the euro | the Parthenon
Stockholm | Sweden | Europe | - | the Baltic Sea | Swedish | the krona | the Vasa Museum
Helsinki | Finland | Europe | - | the Baltic Sea | Finnish | the euro | Helsinki Cathedral
Bergen | Norway | Europe | - | the North Sea | Norwegian | the krone | the old harbour
Dublin | Ireland | Europe | the Liffey | the Irish Sea | English | the euro | Dublin Castle
Cairo | Egypt | Africa | the Nile | - | Arabic | the pound | the Egyptian Museum
Mombasa | Kenya | Africa | - | the Indian Ocean | Swahili | the shilling | Fort Jesus
Tunis | Tunisia | Africa | - | the Mediterranean Sea | Arabic | the dinar | the Bardo Museum
Casablanca | Morocco | Africa | - | the Atlantic Ocean | Arabic | the dirham | the Hassan Mosque
Lagos | Nigeria | Africa | - | the Atlantic Ocean | English | the naira | the National Theatre
Tokyo | Japan | Asia | the Sumida | the Pacific Ocean | Japanese | the yen | Tokyo Tower
Kyoto | Japan | Asia | the Kamo | - | Japanese | the yen | the Golden Pavilion
Seoul | South Korea | Asia | the Han | - | Korean | the won | Seoul Tower
Shanghai | China | Asia | the Huangpu | the East China Sea | Mandarin | the yuan | the Pearl Tower
Wuhan | China | Asia | the Yangtze | - | Mandarin | the yuan | the Yellow Crane Tower
Bangkok | Thailand | Asia | the Chao Phraya | the Gulf of Thailand | Thai | the baht | the Grand Palace
Delhi | India | Asia | the Yamuna | - | Hindi | the rupee | the Red Fort
Agra | India | Asia | the Yamuna | - | Hindi | the rupee | the Taj Mahal
Mumbai | India | Asia | - | the Arabian Sea | Marathi | the rupee | the Gateway of India
Jakarta | Indonesia | Asia | - | the Java Sea | Indonesian | the rupiah | the National Monument
Baghdad | Iraq | Asia | the Tigris | - | Arabic | the dinar | the Iraq Museum
Sydney | Australia | Oceania | - | the Pacific Ocean | English | the dollar | the Sydney Opera House
Perth | Australia | Oceania | the Swan | the Indian Ocean | English | the dollar | the Bell Tower
Auckland | New Zealand | Oceania | - | the Pacific Ocean | English | the dollar | the Sky Tower
Lima | Peru | South America | the Rimac | the Pacific Ocean | Spanish | the sol | the Larco Museum
New York | the United States | North America | the Hudson | the Atlantic Ocean | English | the dollar | the Empire State Building
San Francisco | the United States | North America | - | the Pacific Ocean | English | the dollar | the Golden Gate Bridge
Montreal | Canada | North America | the Saint Lawrence | - | French | the dollar | the Old Port
"""

RIVER = """
name | source | mouth | continent | country | city | tributary
the Danube | the Black Forest | the Black Sea | Europe | Hungary | Vienna | the Sava
the Rhine | the Alps | the North Sea | Europe | Germany | Cologne | the Moselle
the Rhone | the Alps | the Mediterranean Sea | Europe | France | Lyon | the Saone
the Seine | Burgundy | the English Channel | Europe | France | Paris | the Marne
the Thames | the Cotswolds | the North Sea | Europe | England | London | the Cherwell
the Severn | Wales | the Bristol Channel | Europe | England | Gloucester | the Avon
the Loire | the Massif Central | the Atlantic Ocean | Europe | France | Nantes | the Allier
the Po | the Alps | the Adriatic Sea | Europe | Italy | Turin | the Ticino
the Tiber | the Apennines | the Tyrrhenian Sea | Europe | Italy | Rome | the Aniene
the Elbe | the Giant Mountains | the North Sea | Europe | Germany | Dresden | the Vltava
the Oder | the Oder Mountains | the Baltic Sea | Europe | Poland | Wroclaw | the Warta
the Vistula | the Beskids | the Baltic Sea | Europe | Poland | Warsaw | the San
the Volga | the Valdai Hills | the Caspian Sea | Europe | Russia | Kazan | the Kama
the Dnieper | the Valdai Hills | the Black Sea | Europe | Ukraine | Kyiv | the Desna
the Tagus | Spain | the Atlantic Ocean | Europe | Portugal | Lisbon | the Jarama
the Douro | Spain | the Atlantic Ocean | Europe | Portugal | Porto | the Tamega
the Nile | Lake Victoria | the Mediterranean Sea | Africa | Egypt | Cairo | the Atbara
the Niger | the Guinea Highlands | the Atlantic Ocean | Africa | Mali | Bamako | the Benue
the Zambezi | Zambia | the Indian Ocean | Africa | Mozambique | Tete | the Kafue
the Orange River | the Drakensberg | the Atlantic Ocean | Africa | South Africa | Upington | the Vaal
the Ganges | the Himalayas | the Bay of Bengal | Asia | India | Varanasi | the Yamuna
the Indus | Tibet | the Arabian Sea | Asia | Pakistan | Sukkur | the Kabul River
the Yangtze | Tibet | the East China Sea | Asia | China | Wuhan | the Han
the Yellow River | Tibet | the Bohai Sea | Asia | China | Lanzhou | the Wei
the Mekong | Tibet | the South China Sea | Asia | Laos | Vientiane | the Mun
the Tigris | the Taurus Mountains | the Persian Gulf | Asia | Iraq | Baghdad | the Diyala
the Ob | the Altai Mountains | the Arctic Ocean | Asia | Russia | Novosibirsk | the Irtysh
the Lena | the Baikal Mountains | the Arctic Ocean | Asia | Russia | Yakutsk | the Aldan
the Amazon | the Andes | the Atlantic Ocean | South America | Brazil | Iquitos | the Madeira
the Parana | Brazil | the Atlantic Ocean | South America | Argentina | Rosario | the Paraguay
the Magdalena | the Andes | the Caribbean Sea | South America | Colombia | Barranquilla | the Cauca
the Mississippi | Lake Itasca | the Gulf of Mexico | North America | the United States | New Orleans | the Ohio
the Missouri | the Rocky Mountains | the Mississippi | North America | the United States | Omaha | the Platte
the Colorado | the Rocky Mountains | the Gulf of California | North America | the United States | Yuma | the Gila
the Columbia | the Rocky Mountains | the Pacific Ocean | North America | the United States | Portland | the Snake River
the Hudson | the Adirondacks | the Atlantic Ocean | North America | the United States | New York | the Mohawk
the Rio Grande | the Rocky Mountains | the Gulf of Mexico | North America | the United States | El Paso | the Pecos
the Fraser | the Rocky Mountains | the Pacific Ocean | North America | Canada | Vancouver | the Thompson
the Saint Lawrence | Lake Ontario | the Atlantic Ocean | North America | Canada | Montreal | the Ottawa River
the Murray | the Australian Alps | the Indian Ocean | Oceania | Australia | Albury | the Darling
"""

ELEMENT = """
name | symbol | atomicNumber | kind | state | discoverer | discoveryYear | use
hydrogen | H | 1 | nonmetal | gas | Henry Cavendish | 1766 | rocket fuel
helium | He | 2 | noble gas | gas | Pierre Janssen | 1868 | balloons
lithium | Li | 3 | alkali metal | solid | August Arfwedson | 1817 | batteries
boron | B | 5 | metalloid | solid | Humphry Davy | 1808 | glass
carbon | C | 6 | nonmetal | solid | - | - | pencils
nitrogen | N | 7 | nonmetal | gas | Daniel Rutherford | 1772 | fertiliser
oxygen | O | 8 | nonmetal | gas | Joseph Priestley | 1774 | welding
fluorine | F | 9 | halogen | gas | Henri Moissan | 1886 | toothpaste
neon | Ne | 10 | noble gas | gas | William Ramsay | 1898 | bright signs
sodium | Na | 11 | alkali metal | solid | Humphry Davy | 1807 | street lamps
magnesium | Mg | 12 | alkaline earth metal | solid | Humphry Davy | 1808 | fireworks
aluminium | Al | 13 | metal | solid | Hans Oersted | 1825 | drink cans
silicon | Si | 14 | metalloid | solid | Jacob Berzelius | 1824 | computer chips
phosphorus | P | 15 | nonmetal | solid | Hennig Brand | 1669 | matches
sulfur | S | 16 | nonmetal | solid | - | - | gunpowder
chlorine | Cl | 17 | halogen | gas | Carl Scheele | 1774 | swimming pools
argon | Ar | 18 | noble gas | gas | William Ramsay | 1894 | light bulbs
potassium | K | 19 | alkali metal | solid | Humphry Davy | 1807 | fertiliser
calcium | Ca | 20 | alkaline earth metal | solid | Humphry Davy | 1808 | cement
titanium | Ti | 22 | transition metal | solid | William Gregor | 1791 | aircraft
chromium | Cr | 24 | transition metal | solid | Louis Vauquelin | 1797 | stainless steel
manganese | Mn | 25 | transition metal | solid | Johan Gahn | 1774 | steel
iron | Fe | 26 | transition metal | solid | - | - | bridges
cobalt | Co | 27 | transition metal | solid | Georg Brandt | 1735 | blue glass
nickel | Ni | 28 | transition metal | solid | Axel Cronstedt | 1751 | coins
copper | Cu | 29 | transition metal | solid | - | - | electric wires
zinc | Zn | 30 | transition metal | solid | Andreas Marggraf | 1746 | batteries
selenium | Se | 34 | nonmetal | solid | Jacob Berzelius | 1817 | solar cells
bromine | Br | 35 | halogen | liquid | Antoine Balard | 1826 | medicine
krypton | Kr | 36 | noble gas | gas | William Ramsay | 1898 | lasers
silver | Ag | 47 | transition metal | solid | - | - | mirrors
cadmium | Cd | 48 | transition metal | solid | Friedrich Stromeyer | 1817 | batteries
tin | Sn | 50 | metal | solid | - | - | solder
iodine | I | 53 | halogen | solid | Bernard Courtois | 1811 | medicine
xenon | Xe | 54 | noble gas | gas | William Ramsay | 1898 | car lamps
barium | Ba | 56 | alkaline earth metal | solid | Humphry Davy | 1808 | fireworks
tungsten | W | 74 | transition metal | solid | Fausto Elhuyar | 1783 | light bulbs
gold | Au | 79 | transition metal | solid | - | - | coins
mercury | Hg | 80 | transition metal | liquid | - | - | thermometers
lead | Pb | 82 | metal | solid | - | - | car batteries
uranium | U | 92 | actinide | solid | Martin Klaproth | 1789 | power stations
"""

BOOK = """
name | author | publicationYear | genre | setting | character | language
Emma | Jane Austen | 1815 | comic novel | Highbury | Harriet Smith | English
Persuasion | Jane Austen | 1817 | love story | Bath | Anne Elliot | English
Dracula | Bram Stoker | 1897 | horror novel | Transylvania | Jonathan Harker | English
Frankenstein | Mary Shelley | 1818 | horror novel | Geneva | Henry Clerval | English
Middlemarch | George Eliot | 1871 | social novel | England | Dorothea Brooke | English
Jane Eyre | Charlotte Bronte | 1847 | love story | England | Edward Rochester | English
Wuthering Heights | Emily Bronte | 1847 | love story | Yorkshire | Heathcliff | English
Great Expectations | Charles Dickens | 1861 | social novel | Kent | Joe Gargery | English
Oliver Twist | Charles Dickens | 1838 | social novel | London | Fagin | English
David Copperfield | Charles Dickens | 1850 | social novel | London | Uriah Heep | English
Bleak House | Charles Dickens | 1853 | social novel | London | Esther Summerson | English
Treasure Island | Robert Louis Stevenson | 1883 | adventure novel | the Caribbean | Long John Silver | English
Kidnapped | Robert Louis Stevenson | 1886 | adventure novel | Scotland | David Balfour | English
The Jungle Book | Rudyard Kipling | 1894 | story book | India | Mowgli | English
The Invisible Man | H. G. Wells | 1897 | science fiction novel | Sussex | Thomas Marvel | English
The Time Machine | H. G. Wells | 1895 | science fiction novel | London | Weena | English
Moby Dick | Herman Melville | 1851 | adventure novel | the sea | Captain Ahab | English
The Scarlet Letter | Nathaniel Hawthorne | 1850 | historical novel | Boston | Hester Prynne | English
Little Women | Louisa May Alcott | 1868 | family novel | Massachusetts | Jo March | English
Tom Sawyer | Mark Twain | 1876 | adventure novel | Missouri | Becky Thatcher | English
White Fang | Jack London | 1906 | adventure novel | the Yukon | Weedon Scott | English
The Secret Garden | Frances Burnett | 1911 | family novel | Yorkshire | Mary Lennox | English
Black Beauty | Anna Sewell | 1877 | family novel | England | Joe Green | English
Robinson Crusoe | Daniel Defoe | 1719 | adventure novel | the Caribbean | Friday | English
Ivanhoe | Walter Scott | 1819 | historical novel | England | Lady Rowena | English
Rob Roy | Walter Scott | 1817 | historical novel | Scotland | Diana Vernon | English
Vanity Fair | William Thackeray | 1848 | comic novel | London | Becky Sharp | English
Don Quixote | Miguel de Cervantes | 1605 | comic novel | Spain | Sancho Panza | Spanish
The Mysterious Island | Jules Verne | 1875 | adventure novel | the Pacific | Captain Nemo | French
Les Miserables | Victor Hugo | 1862 | historical novel | Paris | Jean Valjean | French
The Three Musketeers | Alexandre Dumas | 1844 | adventure novel | Paris | Athos | French
Madame Bovary | Gustave Flaubert | 1857 | social novel | Normandy | Charles Bovary | French
Germinal | Emile Zola | 1885 | social novel | France | Etienne Lantier | French
Nana | Emile Zola | 1880 | social novel | Paris | Count Muffat | French
Heidi | Johanna Spyri | 1881 | family novel | the Alps | Peter | German
Pinocchio | Carlo Collodi | 1883 | family novel | Tuscany | Geppetto | Italian
War and Peace | Leo Tolstoy | 1869 | historical novel | Russia | Natasha Rostova | Russian
Anna Karenina | Leo Tolstoy | 1878 | social novel | Russia | Count Vronsky | Russian
Fathers and Sons | Ivan Turgenev | 1862 | social novel | Russia | Bazarov | Russian
Hamlet | William Shakespeare | 1603 | tragic play | Denmark | Ophelia | English
Othello | William Shakespeare | 1622 | tragic play | Venice | Iago | English
Macbeth | William Shakespeare | 1623 | tragic play | Scotland | Banquo | English
"""

AUTHOR = """
name | birthPlace
Jane Austen | England
Bram Stoker | Ireland
Mary Shelley | England
George Eliot | England
Charlotte Bronte | England
Emily Bronte | England
Charles Dickens | England
Robert Louis Stevenson | Scotland
Rudyard Kipling | India
H. G. Wells | England
Herman Melville | New York
Nathaniel Hawthorne | Massachusetts
Mark Twain | Missouri
Jack London | San Francisco
Daniel Defoe | London
Walter Scott | Scotland
William Thackeray | India
Miguel de Cervantes | Spain
Jules Verne | France
Victor Hugo | France
Alexandre Dumas | France
Gustave Flaubert | France
Emile Zola | Paris
Johanna Spyri | Switzerland
Carlo Collodi | Italy
Leo Tolstoy | Russia
Ivan Turgenev | Russia
William Shakespeare | England
"""

BUILDING = """
name | city | country | architect | completionYear | material | kind | style
the Eiffel Tower | Paris | France | Stephen Sauvestre | 1889 | iron | - | -
the Louvre Pyramid | Paris | France | I. M. Pei | 1989 | glass | museum entrance | modern
the Sacre Coeur | Paris | France | Paul Abadie | 1914 | stone | church | Byzantine
Notre Dame | Paris | France | - | 1345 | stone | cathedral | Gothic
the Pompidou Centre | Paris | France | Renzo Piano | 1977 | steel | museum | modern
the Colosseum | Rome | Italy | - | 80 | stone | arena | Roman
the Pantheon | Rome | Italy | - | - | concrete | temple | Roman
Milan Cathedral | Milan | Italy | - | 1965 | marble | - | Gothic
the Shard | London | the United Kingdom | Renzo Piano | 2012 | glass | skyscraper | modern
Tower Bridge | London | the United Kingdom | Horace Jones | 1894 | steel | - | Gothic
the Royal Pavilion | Brighton | the United Kingdom | John Nash | 1823 | - | palace | Indian
the Brandenburg Gate | Berlin | Germany | Carl Langhans | 1791 | sandstone | - | classical
the Reichstag | Berlin | Germany | Paul Wallot | 1894 | stone | parliament | Renaissance
Cologne Cathedral | Cologne | Germany | - | 1880 | stone | - | Gothic
the Atomium | Brussels | Belgium | - | 1958 | steel | monument | modern
the Alhambra | Granada | Spain | - | - | brick | palace | Moorish
Casa Mila | Barcelona | Spain | Antoni Gaudi | 1912 | stone | house | modern
Belem Tower | Lisbon | Portugal | Francisco de Arruda | 1519 | stone | fort | Gothic
Charles Bridge | Prague | the Czech Republic | Peter Parler | 1402 | sandstone | - | Gothic
the Dancing House | Prague | the Czech Republic | Frank Gehry | 1996 | concrete | office building | modern
Helsinki Cathedral | Helsinki | Finland | Carl Engel | 1852 | brick | - | classical
the Winter Palace | Saint Petersburg | Russia | Francesco Rastrelli | 1762 | brick | - | Baroque
the Parthenon | Athens | Greece | - | - | marble | temple | Greek
Hagia Sophia | Istanbul | Turkey | - | 537 | brick | mosque | Byzantine
the Blue Mosque | Istanbul | Turkey | Mehmed Aga | 1616 | stone | - | Ottoman
the Taj Mahal | Agra | India | Ustad Lahauri | 1653 | marble | tomb | Mughal
the Red Fort | Delhi | India | Ustad Lahauri | 1648 | sandstone | - | Mughal
the Lotus Temple | Delhi | India | Fariborz Sahba | 1986 | marble | - | modern
the Burj Khalifa | Dubai | the United Arab Emirates | Adrian Smith | 2010 | concrete | skyscraper | modern
Tokyo Tower | Tokyo | Japan | - | 1958 | steel | - | -
Himeji Castle | Himeji | Japan | - | 1609 | wood | - | Japanese
the Forbidden City | Beijing | China | Kuai Xiang | 1420 | wood | palace | Chinese
the Space Needle | Seattle | the United States | John Graham | 1962 | steel | tower | modern
the Chrysler Building | New York | the United States | William Van Alen | 1930 | steel | skyscraper | Art Deco
the Empire State Building | New York | the United States | William Lamb | 1931 | steel | skyscraper | Art Deco
the Flatiron Building | New York | the United States | Daniel Burnham | 1902 | steel | office block | classical
the Statue of Liberty | New York | the United States | Frederic Bartholdi | 1886 | copper | monument | classical
the Gateway Arch | Saint Louis | the United States | Eero Saarinen | 1965 | steel | monument | modern
the White House | Washington | the United States | James Hoban | 1800 | sandstone | - | classical
the Lincoln Memorial | Washington | the United States | Henry Bacon | 1922 | marble | monument | classical
the Golden Gate Bridge | San Francisco | the United States | Irving Morrow | 1937 | steel | - | Art Deco
the Sydney Opera House | Sydney | Australia | Jorn Utzon | 1973 | concrete | concert hall | modern
the Sky Tower | Auckland | New Zealand | Gordon Moller | 1997 | concrete | - | modern
"""

ANIMAL = """
name | class | habitat | continent | food | young | group | activeBy
the red fox | mammal | woodlands | Europe | mice | cubs | skulk | night
the grey wolf | mammal | forests | North America | deer | pups | pack | night
the lion | mammal | grasslands | Africa | zebras | cubs | pride | night
the tiger | mammal | forests | Asia | deer | cubs | - | night
the snow leopard | mammal | mountains | Asia | wild sheep | cubs | - | -
the giraffe | mammal | grasslands | Africa | leaves | calves | tower | day
the zebra | mammal | grasslands | Africa | grass | foals | herd | day
the African elephant | mammal | grasslands | Africa | grass | calves | herd | -
the hippo | mammal | rivers | Africa | grass | calves | pod | night
the black rhino | mammal | grasslands | Africa | leaves | calves | crash | night
the gorilla | mammal | rainforests | Africa | leaves | infants | troop | day
the chimpanzee | mammal | rainforests | Africa | fruit | infants | troop | day
the orangutan | mammal | rainforests | Asia | fruit | infants | - | day
the giant panda | mammal | mountains | Asia | bamboo | cubs | - | -
the red panda | mammal | mountains | Asia | bamboo | cubs | - | -
the brown bear | mammal | forests | North America | salmon | cubs | - | day
the moose | mammal | forests | North America | twigs | calves | - | -
the beaver | mammal | rivers | North America | bark | kits | colony | night
the bison | mammal | grasslands | North America | grass | calves | herd | day
the jaguar | mammal | rainforests | South America | deer | cubs | - | night
the capybara | mammal | wetlands | South America | grass | pups | herd | -
the giant anteater | mammal | grasslands | South America | ants | pups | - | -
the red kangaroo | mammal | deserts | Australia | grass | joeys | mob | night
the koala | mammal | woodlands | Australia | leaves | joeys | - | night
the wombat | mammal | woodlands | Australia | grass | joeys | - | night
the platypus | mammal | rivers | Australia | worms | - | - | night
the emu | bird | grasslands | Australia | seeds | chicks | mob | day
the ostrich | bird | grasslands | Africa | seeds | chicks | flock | day
the emperor penguin | bird | polar seas | Antarctica | fish | chicks | colony | day
the bald eagle | bird | lakes | North America | fish | eaglets | - | day
the barn owl | bird | farmland | Europe | mice | owlets | - | night
the flamingo | bird | lakes | Africa | shrimps | chicks | flock | -
the toucan | bird | rainforests | South America | fruit | chicks | flock | day
the mute swan | bird | lakes | Europe | water plants | cygnets | - | day
the Nile crocodile | reptile | rivers | Africa | fish | hatchlings | - | night
the king cobra | reptile | forests | Asia | snakes | hatchlings | - | day
the tree frog | amphibian | wetlands | Europe | insects | tadpoles | - | night
the fire salamander | amphibian | forests | Europe | insects | larvae | - | night
the axolotl | amphibian | lakes | North America | worms | larvae | - | night
the hedgehog | mammal | woodlands | Europe | insects | hoglets | - | night
the badger | mammal | woodlands | Europe | worms | cubs | clan | night
the red squirrel | mammal | forests | Europe | seeds | kits | - | day
the otter | mammal | rivers | Europe | fish | pups | - | -
the wild boar | mammal | forests | Europe | roots | piglets | - | night
the meerkat | mammal | deserts | Africa | insects | pups | mob | day
the yak | mammal | mountains | Asia | grass | calves | herd | day
"""

DISH = """
name | country | mainIngredient | course | method | flavour | servedWith
paella | Spain | rice | main course | simmered | saffron | lemon
gazpacho | Spain | tomatoes | starter | blended | garlic | bread
risotto | Italy | rice | main course | simmered | white wine | cheese
pizza | Italy | dough | main course | baked | basil | salad
lasagne | Italy | pasta | main course | baked | nutmeg | salad
minestrone | Italy | vegetables | starter | boiled | basil | bread
tiramisu | Italy | cream cheese | dessert | chilled | coffee | cocoa
ratatouille | France | aubergine | main course | stewed | thyme | bread
quiche | France | eggs | starter | baked | nutmeg | salad
crema catalana | Spain | cream | dessert | chilled | cinnamon | biscuits
goulash | Hungary | beef | main course | stewed | paprika | bread
borscht | Ukraine | beetroot | starter | boiled | dill | sour cream
moussaka | Greece | aubergine | main course | baked | cinnamon | salad
tzatziki | Greece | yoghurt | starter | mixed | garlic | bread
baklava | Turkey | pastry | dessert | baked | honey | coffee
hummus | Lebanon | chickpeas | starter | blended | lemon | flat bread
falafel | Egypt | beans | snack | fried | cumin | flat bread
tagine | Morocco | lamb | main course | stewed | cumin | couscous
jollof rice | Senegal | rice | main course | simmered | chilli | plantain
biryani | India | rice | main course | steamed | cardamom | yoghurt
dal | India | lentils | main course | boiled | turmeric | rice
samosa | India | potatoes | snack | fried | coriander | chutney
sushi | Japan | rice | main course | rolled | vinegar | wasabi
miso soup | Japan | tofu | starter | boiled | seaweed | rice
kimchi | South Korea | cabbage | side dish | pickled | chilli | rice
bibimbap | South Korea | rice | main course | mixed | chilli | egg
pho | Vietnam | noodles | main course | boiled | star anise | lime
pad thai | Thailand | noodles | main course | fried | tamarind | peanuts
green curry | Thailand | chicken | main course | simmered | basil | rice
satay | Indonesia | chicken | snack | grilled | turmeric | peanut sauce
nasi goreng | Indonesia | rice | main course | fried | soy sauce | egg
rendang | Indonesia | beef | main course | stewed | coconut | rice
adobo | the Philippines | chicken | main course | stewed | vinegar | rice
mapo tofu | China | tofu | main course | fried | chilli | rice
guacamole | Mexico | avocado | starter | mashed | lime | corn chips
ceviche | Peru | raw fish | starter | marinated | lime | sweet potato
feijoada | Brazil | black beans | main course | stewed | garlic | rice
empanada | Argentina | beef | snack | baked | cumin | -
haggis | Scotland | lamb | main course | boiled | pepper | turnips
cottage pie | England | beef | main course | baked | thyme | peas
fondue | Switzerland | cheese | main course | melted | white wine | bread
rosti | Switzerland | potatoes | side dish | fried | butter | bacon
schnitzel | Austria | veal | main course | fried | lemon | potato salad
apple strudel | Austria | apples | dessert | baked | cinnamon | cream
sauerkraut | Germany | cabbage | side dish | pickled | caraway | sausages
bratwurst | Germany | pork | snack | grilled | nutmeg | mustard
gravlax | Sweden | salmon | starter | cured | dill | mustard
"""


@functools.cache
def rows(table: str) -> list[dict[str, str]]:
    """Read a table: one dictionary per row, by column name, without the empty cells."""
    header, *lines = ([cell.strip() for cell in line.split("|")] for line in table.strip().splitlines())
    return [{name: cell for name, cell in zip(header, line, strict=True) if cell != "-"} for line in lines]
